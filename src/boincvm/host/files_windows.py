"""File descriptors on Windows; import it through `files`."""

import ctypes
import errno
import os
import secrets
import shutil
import stat
import sys
from ctypes import wintypes
from pathlib import Path
from threading import Lock

from boincvm.host import win32_windows as win32
from boincvm.host.not_yet import not_yet

assert sys.platform == "win32"

from boincvm.host.directory_handles_windows import beneath

_PIECE = 1 << 20
_FLAGS = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "c+": os.O_RDWR | os.O_CREAT,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}
KEEPS_UNLINKED = False
"""Whether a file can lose its name while processes have it open: only if all agreed to that."""
SYNCS_ALL = False
"""Whether `sync_all` can be called; else each file is to be synced by itself."""
_SET_SPARSE = 0x0009_00C4
"""FSCTL_SET_SPARSE."""
_END_OF_FILE = 6
"""FileEndOfFileInfo."""
_position = Lock()
"""Held while a descriptor's file position differs from the one that its owner left."""


def open_descriptor(
    path: str | bytes | os.PathLike[str],
    mode: str = "r",
    *,
    follow_links: bool = True,
    wait: bool = True,
    permissions: int = 0o666,
    parent: int | None = None,
) -> int:
    """Open `path` and return its descriptor; see files_posix.py."""
    if parent is not None:
        path = beneath(parent, path)
    flags = _FLAGS[mode] | os.O_BINARY | os.O_NOINHERIT
    if follow_links:
        return os.open(path, flags, permissions)
    if os.path.islink(path):  # noqa: PTH114 - it may be bytes
        raise OSError(errno.ELOOP, "it is a symbolic link")
    descriptor = os.open(path, flags & ~os.O_TRUNC, permissions)
    # The opened file must be what the name refers to now, not a link put there in the meantime.
    if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "it is a symbolic link")
    if flags & os.O_TRUNC:
        os.ftruncate(descriptor, 0)
    return descriptor


win32.kernel32.DeviceIoControl.argtypes = (
    wintypes.HANDLE,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
    ctypes.c_void_p,
)
win32.kernel32.SetFileInformationByHandle.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
)


def resize(descriptor: int, size: int) -> None:
    """Give a file `size` bytes, with a hole for new ones where the file system has holes.

    Microsoft's C library, and so os.ftruncate, would write all the zeros. Raises OSError.
    """
    import msvcrt

    handle = msvcrt.get_osfhandle(descriptor)
    returned = wintypes.DWORD()
    # FAT has no holes and refuses; then the disk's room bounds what is filled.
    win32.kernel32.DeviceIoControl(
        handle, _SET_SPARSE, None, 0, None, 0, ctypes.byref(returned), None
    )
    end = ctypes.c_int64(size)
    win32.check(
        win32.kernel32.SetFileInformationByHandle(
            handle, _END_OF_FILE, ctypes.byref(end), ctypes.sizeof(end)
        )
    )


def read_at(descriptor: int, length: int, offset: int, /) -> bytes:
    """Read up to `length` bytes at `offset`, keeping the file position. Raises OSError."""
    with _position:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, length)
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)


def write_at(descriptor: int, data: bytes | memoryview, offset: int, /) -> int:
    """Write at `offset`, keeping the file position, and return the byte count. Raises OSError."""
    with _position:
        before = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, data)
        finally:
            os.lseek(descriptor, before, os.SEEK_SET)


def open_nameless(directory: Path) -> int:
    """Create a file in `directory` that vanishes with its last descriptor. Raises OSError.

    It has a name meanwhile, for which nobody else can open it.
    """
    path = directory / f".boincvm-{secrets.token_hex(8)}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_TEMPORARY | os.O_BINARY | os.O_NOINHERIT
    return os.open(path, flags)


def copy_range(source: int, offset: int, target: int, at: int, length: int) -> int:
    """Copy up to `length` bytes at `offset` of one file to `at` in another; return how many."""
    return write_at(target, read_at(source, min(length, _PIECE), offset), at)


def set_mode(descriptor: int, mode: int) -> None:
    """Do nothing: Windows has no permission bits."""


def sync_directory(path: Path) -> None:
    """Raise OSError where `path` is not a directory.

    Windows has no call that syncs one; NTFS keeps a journal of names.
    """
    if not stat.S_ISDIR(path.stat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a directory", str(path))


def give_to(descriptor: int, user: int) -> None:
    """Make the user with that id the file's owner. Raises OSError."""
    raise not_yet("giving a file to another user")


def sync_all() -> None:
    """Not on Windows; see SYNCS_ALL."""
    raise not_yet("writing all files to the disk")


def drop_cached(descriptor: int) -> None:
    """Do nothing: Windows cannot drop a file from its cache."""


def free_space(directory: Path) -> int:
    """Return how many bytes this user can still write to the disk of `directory`."""
    return shutil.disk_usage(directory).free


def has_free_entries(directory: Path) -> bool:
    """Return True: NTFS makes entries as they are needed."""
    return True


def allocated_size(status: os.stat_result) -> int:
    """Return the size of a file, with its holes: `status` does not tell how many it has."""
    return status.st_size
