"""Locks on Windows: LockFileEx, and an unshared file where BOINC uses one.

Import it through `locks`. Locks are mandatory there, so one byte far beyond any content is locked.
"""

import ctypes
import os
import sys
from pathlib import Path

from boincvm.host.not_yet import not_yet

assert sys.platform == "win32"

_EXCLUSIVE, _FAIL_IMMEDIATELY = 2, 1
_BEYOND = 0x7FFF_FFFF
"""The high half of the offset of the byte that is locked."""
_LOCK_VIOLATION, _IO_PENDING = 33, 997
_GENERIC_WRITE = 0x4000_0000
_OPEN_ALWAYS = 4
_ATTRIBUTE_NORMAL = 0x80
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


def lock(descriptor: int) -> None:
    """Wait for the lock and hold it until the descriptor is closed. Raises OSError."""
    _lock(descriptor, _EXCLUSIVE)


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
    """Open a directory that can itself be locked."""
    raise not_yet("locks on directories")


def lock_slot_file(path: Path) -> int | None:
    """Open, unshared, the file by which a BOINC app reserves its slot, and return its descriptor.

    (lib/filesys.cpp, FILE_LOCK: CreateFile with share mode 0.) Returns None if another process has
    it. Raises OSError.
    """
    import msvcrt

    library = ctypes.WinDLL("kernel32", use_last_error=True)
    library.CreateFileW.restype = ctypes.c_void_p
    handle: int | None = library.CreateFileW(
        ctypes.c_wchar_p(str(path)), _GENERIC_WRITE, 0, None, _OPEN_ALWAYS, _ATTRIBUTE_NORMAL, None
    )
    if handle is None or handle == _INVALID_HANDLE:
        number = ctypes.get_last_error()
        if number == _SHARING_VIOLATION:
            return None
        raise ctypes.WinError(number)
    return msvcrt.open_osfhandle(handle, os.O_WRONLY)
