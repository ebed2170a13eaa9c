"""Functions of Windows that Python's library has not: declared once, with their errors as OSError.

Documented at learn.microsoft.com/windows/win32/api, but for NtSuspendProcess, NtResumeProcess and
NtQuerySystemInformation, which ntdll has had since Windows XP.
"""

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import wintypes

assert sys.platform == "win32"

kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
ntdll = ctypes.WinDLL("ntdll", use_last_error=True)

SYNCHRONIZE = 0x0010_0000
TERMINATE = 0x0001
SUSPEND_RESUME = 0x0800
SET_QUOTA = 0x0100
QUERY = 0x1000
"""PROCESS_QUERY_LIMITED_INFORMATION."""

ACCESS_DENIED, INVALID_PARAMETER = 5, 87
_WAIT_OBJECT, _WAIT_TIMEOUT = 0, 258
FOREVER = 0xFFFF_FFFF
_100_NANOSECONDS = 1e-7

kernel32.OpenProcess.argtypes = (wintypes.DWORD, wintypes.BOOL, wintypes.DWORD)
kernel32.OpenProcess.restype = wintypes.HANDLE
kernel32.GetCurrentProcess.restype = wintypes.HANDLE
kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
kernel32.WaitForSingleObject.argtypes = (wintypes.HANDLE, wintypes.DWORD)
kernel32.WaitForSingleObject.restype = wintypes.DWORD
kernel32.WaitForMultipleObjects.argtypes = (
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.BOOL,
    wintypes.DWORD,
)
kernel32.WaitForMultipleObjects.restype = wintypes.DWORD
kernel32.CreateEventW.argtypes = (
    ctypes.c_void_p,
    wintypes.BOOL,
    wintypes.BOOL,
    wintypes.LPCWSTR,
)
kernel32.CreateEventW.restype = wintypes.HANDLE
kernel32.SetEvent.argtypes = (wintypes.HANDLE,)
kernel32.TerminateProcess.argtypes = (wintypes.HANDLE, wintypes.UINT)
kernel32.SetPriorityClass.argtypes = (wintypes.HANDLE, wintypes.DWORD)
kernel32.GetProcessTimes.argtypes = (wintypes.HANDLE, *[ctypes.POINTER(wintypes.FILETIME)] * 4)
ntdll.NtSuspendProcess.argtypes = (wintypes.HANDLE,)
ntdll.NtResumeProcess.argtypes = (wintypes.HANDLE,)


def last_error() -> OSError:
    """Return the error of the call that has just failed."""
    return ctypes.WinError(ctypes.get_last_error())


def check(result: int) -> None:
    """Raise OSError unless a function of kernel32 has succeeded."""
    if not result:
        raise last_error()


def open_process_handle(pid: int, rights: int) -> int:
    """Open a process by its id. Raises OSError: `winerror` is INVALID_PARAMETER if it has gone."""
    handle: int | None = kernel32.OpenProcess(rights, False, pid)
    if not handle:
        raise last_error()
    return handle


def close(handle: int) -> None:
    """Close a handle."""
    kernel32.CloseHandle(handle)


@contextmanager
def process_handle(pid: int, rights: int) -> Iterator[int]:
    """Open a process for the time of a block. Raises OSError."""
    handle = open_process_handle(pid, rights)
    try:
        yield handle
    finally:
        close(handle)


def make_event() -> int:
    """Return the handle of a new event, which stays set once it is. Raises OSError."""
    handle: int | None = kernel32.CreateEventW(None, True, False, None)
    if not handle:
        raise last_error()
    return handle


def set_event(handle: int) -> None:
    """Set an event: who waits for it goes on. Raises OSError."""
    check(kernel32.SetEvent(handle))


def has_ended(handle: int, milliseconds: int = 0) -> bool:
    """Wait up to `milliseconds` for the end of a process and tell whether it has ended."""
    result: int = kernel32.WaitForSingleObject(handle, milliseconds)
    if result not in (_WAIT_OBJECT, _WAIT_TIMEOUT):
        raise last_error()
    return result == _WAIT_OBJECT


def wait_for_any(handles: Sequence[int], milliseconds: int) -> int | None:
    """Wait up to `milliseconds` until one of the handles is set, and return its index.

    Returns None if none is. Raises OSError.
    """
    array = (wintypes.HANDLE * len(handles))(*handles)
    result: int = kernel32.WaitForMultipleObjects(len(handles), array, False, milliseconds)
    if result == _WAIT_TIMEOUT:
        return None
    if not _WAIT_OBJECT <= result < _WAIT_OBJECT + len(handles):
        raise last_error()
    return result - _WAIT_OBJECT


def suspend(handle: int) -> None:
    """Suspend all threads of a process; as many calls of `resume` let it go on."""
    _check_status(ntdll.NtSuspendProcess(handle))


def resume(handle: int) -> None:
    """Undo one `suspend`."""
    _check_status(ntdll.NtResumeProcess(handle))


def cpu_seconds(handle: int) -> float:
    """Return the CPU seconds, user and system, that a process has used. Raises OSError."""
    _, _, system, user = _times(handle)
    return seconds(system) + seconds(user)


def begin(handle: int) -> float:
    """Return when a process began, in seconds since 1601. Raises OSError."""
    return seconds(_times(handle)[0])


def _times(handle: int) -> tuple[wintypes.FILETIME, ...]:
    """Return when a process began and ended, and its system and user times. Raises OSError."""
    times = tuple(wintypes.FILETIME() for _ in range(4))
    check(kernel32.GetProcessTimes(handle, *map(ctypes.byref, times)))
    return times


def seconds(time: wintypes.FILETIME) -> float:
    """Return a length of time in seconds."""
    return float((time.dwHighDateTime << 32) + time.dwLowDateTime) * _100_NANOSECONDS


def _check_status(status: int) -> None:
    """Raise OSError unless an NTSTATUS tells of success."""
    if status < 0:
        raise ctypes.WinError(ntdll.RtlNtStatusToDosError(status))
