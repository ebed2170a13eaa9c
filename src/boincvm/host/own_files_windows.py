"""Who owns a file on Windows, and who can write to it, by its access control list.

Import it through `own_files`. (learn.microsoft.com/windows/win32/secauthz/access-control-lists)
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from ctypes import wintypes
from functools import cache
from pathlib import Path
from typing import NamedTuple

from boincvm.host import win32_windows as win32

assert sys.platform == "win32"

_SYSTEM, _ADMINISTRATORS = "S-1-5-18", "S-1-5-32-544"
_INSTALLER = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
"""The service that owns Windows' own files."""
_OWNER_RIGHTS = "S-1-3-4"
"""Stands for the file's owner."""
_POWERFUL = frozenset((_SYSTEM, _ADMINISTRATORS, _INSTALLER))
"""They can do everything anyway, as root on Linux."""
_FILE, _OWNER, _OWNER_AND_LIST = 1, 1, 1 | 4
"""SE_FILE_OBJECT; OWNER_SECURITY_INFORMATION, also with DACL_SECURITY_INFORMATION."""
_ALLOWED, _ALLOWED_IF = 0, 9
"""The types of entries that allow something: ACCESS_ALLOWED_ACE and ACCESS_ALLOWED_CALLBACK_ACE."""
_ONLY_INHERITED = 8
"""The entry is for what is made in the directory, not for the directory itself."""
_WRITES = 0x1000_0000 | 0x4000_0000 | 0x000D_0000 | 0x40 | 4 | 2
"""Generic rights to all and to write; to delete, to change the list and the owner; to delete
entries, append and write."""
_TOKEN_QUERY, _TOKEN_USER = 8, 1

_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
_advapi32.GetNamedSecurityInfoW.argtypes = (
    wintypes.LPCWSTR,
    ctypes.c_int,
    wintypes.DWORD,
    *[ctypes.c_void_p] * 5,
)
_advapi32.GetNamedSecurityInfoW.restype = wintypes.DWORD
_advapi32.GetSecurityInfo.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    wintypes.DWORD,
    *[ctypes.c_void_p] * 5,
)
_advapi32.GetSecurityInfo.restype = wintypes.DWORD
_advapi32.GetAce.argtypes = (ctypes.c_void_p, wintypes.DWORD, ctypes.c_void_p)
_advapi32.ConvertSidToStringSidW.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
_advapi32.OpenProcessToken.argtypes = (wintypes.HANDLE, wintypes.DWORD, ctypes.c_void_p)
_advapi32.GetTokenInformation.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
)
win32.kernel32.LocalFree.argtypes = (ctypes.c_void_p,)


class Rights(NamedTuple):
    """Whose a file is, and who can change it, each by a security identifier in text form."""

    owner: str
    writers: frozenset[str]
    anybody: bool = False
    """Whether it has no list at all."""


class _EntryHead(ctypes.Structure):
    """ACE_HEADER and the mask of rights; the identifier follows."""

    _fields_ = (
        ("kind", wintypes.BYTE),
        ("flags", wintypes.BYTE),
        ("size", wintypes.WORD),
        ("rights", wintypes.DWORD),
    )


class _ListHead(ctypes.Structure):
    """ACL."""

    _fields_ = (
        ("revision", wintypes.BYTE),
        ("padding", wintypes.BYTE),
        ("size", wintypes.WORD),
        ("count", wintypes.WORD),
        ("more_padding", wintypes.WORD),
    )


def check_owner(path: Path, status: os.stat_result) -> None:
    """Raise HostError if `path` is not this user's own or others can write to it."""
    rights, ours = rights_of(path), user_identifier()
    if rights.owner not in _POWERFUL | {ours}:
        raise _refusal(path, "it belongs to another user")
    others = rights.writers - _POWERFUL - {ours, _OWNER_RIGHTS}
    if others or rights.anybody:
        raise _refusal(path, "users other than you can write to it")


def owner_of(handle: int) -> str:
    """Return who owns what a handle has open: a file or a named pipe. Raises OSError."""
    owner, descriptor = ctypes.c_void_p(), ctypes.c_void_p()
    result: int = _advapi32.GetSecurityInfo(
        handle, _FILE, _OWNER, ctypes.byref(owner), None, None, None, ctypes.byref(descriptor)
    )
    if result:
        raise ctypes.WinError(result)
    try:
        return _text(owner.value)
    finally:
        win32.kernel32.LocalFree(descriptor)


def _refusal(path: Path, why: str) -> Exception:
    from boincvm.errors import HostError

    return HostError(
        f"{path} is not used: {why}",
        hint="set BOINCVM_HOME to a directory that only you can write to, or unset it",
    )


def rights_of(path: Path) -> Rights:
    """Return who owns the file and who can write to it. Raises OSError."""
    owner, entries, descriptor = (ctypes.c_void_p() for _ in range(3))
    result: int = _advapi32.GetNamedSecurityInfoW(
        str(path),
        _FILE,
        _OWNER_AND_LIST,
        ctypes.byref(owner),
        None,
        ctypes.byref(entries),
        None,
        ctypes.byref(descriptor),
    )
    if result:
        raise ctypes.WinError(result)
    try:
        if not entries.value:
            return Rights(_text(owner.value), frozenset(), anybody=True)
        return Rights(_text(owner.value), frozenset(_writers(entries.value)))
    finally:
        win32.kernel32.LocalFree(descriptor)


def _writers(entries: int) -> Iterator[str]:
    """Yield the identifiers that a list allows to write. Raises OSError."""
    for number in range(_ListHead.from_address(entries).count):
        entry = ctypes.c_void_p()
        win32.check(_advapi32.GetAce(entries, number, ctypes.byref(entry)))
        if entry.value is None:
            continue
        head = _EntryHead.from_address(entry.value)
        allows = head.kind in (_ALLOWED, _ALLOWED_IF) and not head.flags & _ONLY_INHERITED
        if allows and head.rights & _WRITES:
            yield _text(entry.value + ctypes.sizeof(_EntryHead))


def _text(identifier: int | None) -> str:
    """Return a security identifier as text. Raises OSError."""
    text = wintypes.LPWSTR()
    win32.check(_advapi32.ConvertSidToStringSidW(identifier, ctypes.byref(text)))
    try:
        return text.value or ""
    finally:
        win32.kernel32.LocalFree(text)


@cache
def user_identifier() -> str:
    """Return the security identifier of this process's user. Raises OSError."""
    token = wintypes.HANDLE()
    ours = win32.kernel32.GetCurrentProcess()
    win32.check(_advapi32.OpenProcessToken(ours, _TOKEN_QUERY, ctypes.byref(token)))
    try:
        # TOKEN_USER begins with a pointer to the identifier, which follows.
        answer = (ctypes.c_void_p * 32)()
        size = wintypes.DWORD()
        win32.check(
            _advapi32.GetTokenInformation(
                token, _TOKEN_USER, answer, ctypes.sizeof(answer), ctypes.byref(size)
            )
        )
        return _text(answer[0])
    finally:
        win32.close(token.value or 0)
