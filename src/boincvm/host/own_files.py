"""Files and directories of boincvm's own, used only if nobody else can have written them.

The contents of the cache and data directories are trusted: which accelerator works, which image was
verified, which state a machine is in. So they must belong to this user (or to root, who can do
everything anyway), and nobody else may be able to write to them.
"""

from __future__ import annotations

import os
import stat
import sys
from io import FileIO
from pathlib import Path

from boincvm.host.files import open_descriptor

if sys.platform == "win32":
    from boincvm.host.own_files_windows import check_owner
else:
    from boincvm.host.own_files_posix import check_owner


def check_directory(path: Path) -> Path:
    """Check that the directory `path`, if it exists, is this user's own, and return the path.

    Raises HostError where it is not, or where others can write to it.
    """
    try:
        link, status = path.lstat(), path.stat()
    except OSError:
        return path  # using it will raise the reason
    for result in (link, status):
        check_owner(path, result)
    return path


def open_own(path: Path) -> FileIO:
    """Open the regular file `path` for reading, without following a link or blocking.

    Raises OSError, and HostError where it is not this user's own or others can write to it.
    """
    descriptor = open_descriptor(path, follow_links=False, wait=False)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path.name} is not a regular file")
        check_owner(path, status)
    except BaseException:
        os.close(descriptor)
        raise
    return FileIO(descriptor)


def make_directory(path: Path) -> None:
    """Make the directory `path` and its missing parents, for this user alone. Raises OSError."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)
