"""Locks on Windows: not yet, but for BOINC's; `locks` is the face."""

import ctypes
import os
import sys
from pathlib import Path

from boincvm.host.not_yet import not_yet

assert sys.platform == "win32"

_WHAT = "locks on files"
_GENERIC_WRITE = 0x4000_0000
_OPEN_ALWAYS = 4
_ATTRIBUTE_NORMAL = 0x80
_SHARING_VIOLATION = 32
_INVALID_HANDLE = ctypes.c_void_p(-1).value


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Whether the lock was to be had at once."""
    raise not_yet(_WHAT)


def lock(descriptor: int) -> None:
    """Wait for the lock."""
    raise not_yet(_WHAT)


def open_lockable_directory(path: Path) -> int:
    """Open a directory that is itself what is locked."""
    raise not_yet(_WHAT)


def lock_slot_file(path: Path) -> int | None:
    """Open the file by which an app of BOINC's has its slot for itself, shared with nobody.

    (lib/filesys.cpp, FILE_LOCK: CreateFile with share mode 0.) Returns its descriptor; None where
    another process has it. Raises OSError.
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
