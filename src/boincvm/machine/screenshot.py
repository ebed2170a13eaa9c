"""Pictures of the screens of machines that did not boot, for people who look for the reason."""

import asyncio
import secrets
import time
from pathlib import Path

from boincvm.errors import BoincvmError
from boincvm.host.own_files import make_directory
from boincvm.hypervisor.contract import Machine
from boincvm.paths import cache_directory

_SCREENSHOTS = "screenshots"
_MOST = 8
"""Pictures that are kept; older ones are removed."""
_LIMIT = 15.0
"""Seconds that a picture may take."""


async def keep_screenshot(machine: Machine) -> str:
    """Keep a picture of the machine's screen; return the end of a message that says where.

    That is "" if no picture can be taken of such a machine. The message names no directory of the
    user, for the log of a task goes to its project.
    """
    if machine.screenshots is None:
        return ""
    directory = cache_directory() / _SCREENSHOTS
    path = directory / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}.png"
    try:
        make_directory(directory)
        async with asyncio.timeout(_LIMIT):
            await machine.screenshots.take_screenshot(path)
        _remove_old(directory)
    except (BoincvmError, OSError) as error:  # TimeoutError is an OSError
        reason = (str(error) or "no answer").replace(str(directory), _SCREENSHOTS)
        return f"; no screenshot could be taken: {reason}"
    return f"; its screen then: {_SCREENSHOTS}/{path.name} in boincvm's cache directory"


def _remove_old(directory: Path) -> None:
    for path in sorted(directory.glob("*.png"))[:-_MOST]:
        path.unlink(missing_ok=True)
