"""graphics_status.xml, which tells a graphics program, started by the client, about a job.

Source: BOINC's api/graphics2_util.cpp. Such a program reads the file about once a second.
"""

import time
from pathlib import Path

from boincvm.host.files import create_new

FILE_NAME = "graphics_status.xml"


def write_graphics_status(
    slot: Path,
    *,
    cpu_time: float,
    elapsed_time: float,
    fraction_done: float,
    suspended: bool,
    network_suspended: bool,
) -> None:
    """Write the file, whole or not at all, but without waiting for the disk.

    Times are in seconds. Raises OSError.
    """
    text = (
        "<graphics_status>\n"
        f"<updated_time>{time.time():f}</updated_time>\n"
        f"<cpu_time>{cpu_time:f}</cpu_time>\n"
        f"<elapsed_time>{elapsed_time:f}</elapsed_time>\n"
        f"<fraction_done>{fraction_done:f}</fraction_done>\n"
        "<boinc_status>\n"
        "<no_heartbeat>0</no_heartbeat>\n"
        f"<suspended>{suspended:d}</suspended>\n"
        "<quit_request>0</quit_request>\n"
        "<abort_request>0</abort_request>\n"
        f"<network_suspended>{network_suspended:d}</network_suspended>\n"
        "</boinc_status>\n"
        "</graphics_status>\n"
    )
    temporary = slot / f".{FILE_NAME}.new"
    with create_new(temporary) as file:
        file.write(text.encode())
    temporary.replace(slot / FILE_NAME)
