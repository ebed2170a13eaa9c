"""Uploads of output files before the task is over.

(api/boinc_api.cpp, boinc_upload_file and boinc_upload_status.)
"""

import os
from pathlib import Path

from boincvm.boinc.tags import element
from boincvm.host.files import open_descriptor

REQUEST_PREFIX = "boinc_ufr_"
STATUS_PREFIX = "boinc_ufs_"
_LONGEST_STATUS = 255


def write_upload_request(slot: Path, name: str) -> None:
    """Request the upload of the output file with the logical name `name`.

    Raises ValueError if that is not a plain name, OSError.
    """
    (slot / (REQUEST_PREFIX + _plain(name))).touch()


def upload_status(slot: Path, name: str) -> int | None:
    """Return 0 if `name` was uploaded, one of BOINC's error numbers, or None if not known yet.

    Raises ValueError if `name` is not a plain name, OSError.
    """
    try:
        path = slot / (STATUS_PREFIX + _plain(name))
        descriptor = open_descriptor(path, follow_links=False, wait=False)
    except FileNotFoundError:
        return None
    try:
        text = os.read(descriptor, _LONGEST_STATUS).decode(errors="replace")
    finally:
        os.close(descriptor)
    try:
        return int(element(text, "status") or "")
    except ValueError:
        return None


def _plain(name: str) -> str:
    if not name or "/" in name or "\0" in name:
        raise ValueError(f"not the name of an output file: {name[:60]!r}")
    return name
