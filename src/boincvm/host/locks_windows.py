"""Locks on Windows: LockFileEx, and an unshared file where BOINC uses one.

Import it through `locks`. Locks are mandatory there, so one byte far beyond any content is locked.
"""

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

assert sys.platform == "win32"

ARE_INHERITED = False
_EXCLUSIVE, _FAIL_IMMEDIATELY = 2, 1
_BEYOND = 0x7FFF_FFFF
"""The high half of the offset of the byte that is locked."""
_LOCK_VIOLATION, _IO_PENDING = 33, 997
_GENERIC_WRITE, _DELETE = 0x4000_0000, 0x0001_0000
DIRECTORY_LOCK = ".lock"
_OPEN_ALWAYS = 4
_DELETE_ON_CLOSE, _OPEN_REPARSE_POINT = 0x0400_0000, 0x0020_0000
_SHARING_VIOLATION = 32
_INVALID_HANDLE = ctypes.c_void_p(-1).value


class _Overlapped(ctypes.Structure):
    """OVERLAPPED: the offset of the locked bytes."""

    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", ctypes.c_uint32),
        ("offset_high", ctypes.c_uint32),
        ("event", ctypes.c_void_p),
    )


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Try to lock until the descriptor is closed; return False if another process has the lock.

    Raises OSError.
    """
    return _lock(descriptor, _FAIL_IMMEDIATELY | (0 if shared else _EXCLUSIVE))


def lock(descriptor: int, *, shared: bool = False) -> None:
    """Wait for the lock and hold it until the descriptor is closed. Raises OSError."""
    _lock(descriptor, 0 if shared else _EXCLUSIVE)


def _lock(descriptor: int, flags: int) -> bool:
    import msvcrt

    library = ctypes.WinDLL("kernel32", use_last_error=True)
    where = _Overlapped(offset_high=_BEYOND)
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor))
    if library.LockFileEx(handle, flags, 0, 1, 0, ctypes.byref(where)):
        return True
    number = ctypes.get_last_error()
    if number in (_LOCK_VIOLATION, _IO_PENDING):
        return False
    raise ctypes.WinError(number)


def open_lockable_directory(path: Path) -> int:
    """Open what stands for a directory in `lock` and `try_lock`: a file in it. Raises OSError."""
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is not a directory", str(path))
    return os.open(
        path / DIRECTORY_LOCK, os.O_RDWR | os.O_CREAT | os.O_BINARY | os.O_NOINHERIT, 0o600
    )


def is_at(descriptor: int, directory: Path) -> bool:
    """Tell whether `open_lockable_directory` still opens what it opened. Raises OSError."""
    return os.path.samestat(os.fstat(descriptor), (directory / DIRECTORY_LOCK).stat())


def close_directory_lock(descriptor: int, directory: Path) -> None:
    """Close what `open_lockable_directory` has opened; remove a directory that is empty but for it.

    If another process opens it in between, that keeps it, and the lock is good there.
    """
    os.close(descriptor)  # an open file cannot be removed
    with suppress(OSError):
        if [path.name for path in directory.iterdir()] == [DIRECTORY_LOCK]:
            (directory / DIRECTORY_LOCK).unlink()
            directory.rmdir()


def remove_locked_file(path: Path, descriptor: int) -> None:
    """Remove a file that `descriptor` locks, and close that. Raises OSError.

    An open file cannot be removed, so another process may lock it in between, and it stays.
    """
    os.close(descriptor)
    path.unlink(missing_ok=True)


def remove_locked_directory(path: Path, descriptor: int) -> None:
    """Remove a directory, with all in it, that `descriptor` locks; and close that.

    What cannot be removed stays.
    """
    import shutil  # it imports compression modules

    os.close(descriptor)  # an open file cannot be removed
    shutil.rmtree(path, ignore_errors=True)


def lock_slot_file(path: Path) -> int | None:
    """Open, unshared, the file by which a BOINC app reserves its slot, and return its descriptor.

    (lib/filesys.cpp, FILE_LOCK: CreateFile with share mode 0.) It is removed when it is closed,
    however its holder ends. Returns None if another process has it. Raises OSError.
    """
    import msvcrt

    library = ctypes.WinDLL("kernel32", use_last_error=True)
    library.CreateFileW.restype = ctypes.c_void_p
    handle: int | None = library.CreateFileW(
        ctypes.c_wchar_p(str(path)),
        _GENERIC_WRITE | _DELETE,
        0,
        None,
        _OPEN_ALWAYS,
        _DELETE_ON_CLOSE | _OPEN_REPARSE_POINT,
        None,
    )
    if handle is None or handle == _INVALID_HANDLE:
        number = ctypes.get_last_error()
        if number == _SHARING_VIOLATION:
            return None
        raise ctypes.WinError(number)
    return msvcrt.open_osfhandle(handle, os.O_WRONLY)


def release_slot_file(path: Path, descriptor: int) -> None:
    """Release the lock and remove the file."""
    os.close(descriptor)
