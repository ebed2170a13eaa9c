"""Files of which it is known that they are files: opening one waits for nobody.

A name that others choose, or a place where others write, may hold a FIFO without a writer, a
device or a link, and whoever just opens it hangs, or is led astray.
"""

import errno
import os
import stat
from io import FileIO
from pathlib import Path
from typing import BinaryIO


def open_regular(path: Path) -> FileIO:
    """Open the regular file `path` for reading; no link is followed, nothing waited for.

    Raises OSError, its `strerror` the reason.
    """
    # Looked at first, for a FIFO that is opened for a moment lets go on who waits to write into it.
    if stat.S_ISFIFO(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return FileIO(descriptor)


def read_regular(path: Path, most: int) -> bytes:
    """Return the first `most` bytes of the regular file `path`. Raises what `open_regular` does."""
    with open_regular(path) as file:
        data = bytearray()
        while len(data) < most and (piece := file.read(most - len(data))):
            data += piece
        return bytes(data)


def create_new(path: Path) -> BinaryIO:
    """Open a new, empty file for writing in place of whatever else was there.

    Raises OSError, also where a directory is in the way.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o666), "wb")
