"""Directories that are held open on Windows, and names beneath them.

A directory that somebody holds open without FILE_SHARE_DELETE can be neither renamed nor replaced
by a link, so its path stays the right one for as long as it is held. The paths that Windows gives
for handles begin with `\\\\?\\`: they may be long, and are taken as they are.
"""

import ctypes
import os
import stat
import sys
from ctypes import wintypes

from boincvm.host import win32_windows as win32
from boincvm.portable_names import is_portable_part
from boincvm.tree_entries import UnsafePathError, shown

assert sys.platform == "win32"

_LIST, _READ_ATTRIBUTES = 0x1, 0x80
_SHARE_READ_AND_WRITE = 0x1 | 0x2
_OPEN_EXISTING = 3
_BACKUP_SEMANTICS, _OPEN_REPARSE_POINT = 0x0200_0000, 0x0020_0000
_REPARSE_POINT = stat.FILE_ATTRIBUTE_REPARSE_POINT
_NAME_SURROGATE = 0x2000_0000
"""The bit of a reparse tag that stands for another name, as those of links and junctions do."""
_INVALID_HANDLE = ctypes.c_void_p(-1).value
_LONGEST_PATH = 1 << 15

win32.kernel32.CreateFileW.argtypes = (
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
win32.kernel32.CreateFileW.restype = wintypes.HANDLE
win32.kernel32.GetFinalPathNameByHandleW.argtypes = (
    wintypes.HANDLE,
    wintypes.LPWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
)


def hold_directory(path: str, *, follow_links: bool) -> int:
    """Open a directory and return its descriptor. Raises OSError, NotADirectoryError."""
    import msvcrt

    flags = _BACKUP_SEMANTICS | (0 if follow_links else _OPEN_REPARSE_POINT)
    handle: int | None = win32.kernel32.CreateFileW(
        path,
        _LIST | _READ_ATTRIBUTES | win32.SYNCHRONIZE,
        _SHARE_READ_AND_WRITE,
        None,
        _OPEN_EXISTING,
        flags,
        None,
    )
    if handle is None or handle == _INVALID_HANDLE:
        raise win32.last_error()
    descriptor = msvcrt.open_osfhandle(handle, os.O_RDONLY)
    status = os.fstat(descriptor)
    leads_away = not follow_links and status.st_file_attributes & _REPARSE_POINT
    if leads_away or not stat.S_ISDIR(status.st_mode):
        os.close(descriptor)
        raise NotADirectoryError(f"{path} is not a directory")
    return descriptor


def path_of(descriptor: int) -> str:
    """Return the path of a file or directory that is open. Raises OSError."""
    import msvcrt

    text = ctypes.create_unicode_buffer(_LONGEST_PATH)
    handle = msvcrt.get_osfhandle(descriptor)
    length: int = win32.kernel32.GetFinalPathNameByHandleW(handle, text, len(text), 0)
    if not 0 < length < len(text):
        raise win32.last_error()
    return text.value


def beneath(parent: int, name: str | bytes | os.PathLike[str]) -> str:
    """Return the path of an entry of a directory that is held.

    Raises UnsafePathError for a name that Windows cannot store, or reads in another way.
    """
    directory = path_of(parent)
    try:
        text = os.fsdecode(name)
    except UnicodeDecodeError:
        text = ""
    if text == ".":
        return directory
    if not text or text == ".." or "/" in text or not is_portable_part(text):
        raise UnsafePathError(f"{shown(os.fsencode(name))} is not a name that Windows can store")
    return f"{directory}\\{text}"


def is_link(status: os.stat_result) -> bool:
    """Tell whether `os.lstat` has found a symbolic link, a junction or another name's stand-in."""
    return bool(
        status.st_file_attributes & _REPARSE_POINT and status.st_reparse_tag & _NAME_SURROGATE
    )
