"""File descriptors, and safe ways to open regular files.

A name that others choose, or a place where others write, may hold a FIFO without a writer, a device
or a link; just opening it could hang or lead elsewhere.
"""

import errno
import os
import stat
import sys
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from boincvm.host.renames import remove

if sys.platform == "win32":
    from boincvm.host.files_windows import (
        KEEPS_UNLINKED,
        SYNCS_ALL,
        allocated_size,
        copy_range,
        drop_cached,
        free_space,
        give_to,
        has_free_entries,
        open_descriptor,
        open_nameless,
        read_at,
        set_mode,
        sync_all,
        sync_directory,
        write_at,
    )
else:
    from boincvm.host.files_posix import (
        KEEPS_UNLINKED,
        SYNCS_ALL,
        allocated_size,
        copy_range,
        drop_cached,
        free_space,
        give_to,
        has_free_entries,
        open_descriptor,
        open_nameless,
        read_at,
        set_mode,
        sync_all,
        sync_directory,
        write_at,
    )

__all__ = [
    "KEEPS_UNLINKED",
    "SYNCS_ALL",
    "allocated_size",
    "copy_range",
    "create_new",
    "drop_cached",
    "free_space",
    "give_to",
    "has_free_entries",
    "open_descriptor",
    "open_nameless",
    "open_regular",
    "read_at",
    "read_regular",
    "set_mode",
    "sync_all",
    "sync_directory",
    "sync_file",
    "sync_file_and_entry",
    "write_at",
]


def open_regular(path: Path) -> FileIO:
    """Open the regular file `path` for reading, without following a link or blocking.

    Raises OSError with the reason as its `strerror`.
    """
    # Check first: opening a FIFO, even briefly, would unblock a process that waits to write to it.
    if stat.S_ISFIFO(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    descriptor = open_descriptor(path, follow_links=False, wait=False)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return FileIO(descriptor)


def read_regular(path: Path, most: int) -> bytes:
    """Read at most `most` bytes of the regular file `path`. Raises what `open_regular` does."""
    with open_regular(path) as file:
        data = bytearray()
        while len(data) < most and (piece := file.read(most - len(data))):
            data += piece
        return bytes(data)


def create_new(path: Path) -> BinaryIO:
    """Open a new, empty file for writing, in place of any that existed.

    Raises OSError, also where a directory is in the way.
    """
    remove(path)
    return os.fdopen(open_descriptor(path, "x", follow_links=False), "wb")


def remove_if_empty(directory: Path) -> None:
    """Remove a directory if it exists and is empty. Raises OSError."""
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise  # something of another kind, which is not ours


def sync_file(path: Path, *, follow_links: bool = True) -> os.stat_result:
    """Sync the content of `path` to the disk and return its status. Raises OSError.

    On Windows a file that another process has open, and lets nobody else write to, is not synced.
    """
    if sys.platform == "win32":
        try:
            # Windows syncs only files opened for writing.
            descriptor = open_descriptor(path, "r+", follow_links=follow_links)
        except PermissionError:
            return path.stat() if follow_links else path.lstat()
    else:
        descriptor = open_descriptor(path, follow_links=follow_links)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def sync_file_and_entry(path: Path) -> None:
    """Sync the content of `path` and its directory's entries to the disk. Raises OSError."""
    sync_file(path)
    sync_directory(path.parent)
