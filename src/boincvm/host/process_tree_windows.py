"""The descendants of a process on Windows, by a snapshot of all processes (Toolhelp32).

Import it through `process_tree`.

Windows has no signals: STOP suspends all threads of a process, CONTINUE undoes that, KILL
terminates it. A process keeps its parent's id when the parent has ended and another process has the
id, so a parent counts only if it is the older one. A process whose parent has ended is nobody's
descendant any more; a task's processes are therefore held together by a job object
(job_objects_windows.py), which nothing leaves.
"""

import ctypes
import sys
from collections.abc import Iterator
from ctypes import wintypes

from boincvm.host import win32_windows as win32
from boincvm.host.not_yet import not_yet

assert sys.platform == "win32"

KILL, STOP, CONTINUE = 9, 19, 18
"""What `send` does, under the numbers that Linux has for it."""
ALARM = STOP_REQUEST = 0
"""No signal: it is never sent on Windows."""

_SNAPSHOT_PROCESSES = 2
_INVALID_HANDLE = ctypes.c_void_p(-1).value
_KILLED = 0xFFFF


class _Entry(ctypes.Structure):
    """PROCESSENTRY32W."""

    _fields_ = (
        ("size", wintypes.DWORD),
        ("usage", wintypes.DWORD),
        ("process", wintypes.DWORD),
        ("heap", ctypes.c_size_t),
        ("module", wintypes.DWORD),
        ("threads", wintypes.DWORD),
        ("parent", wintypes.DWORD),
        ("priority", wintypes.LONG),
        ("flags", wintypes.DWORD),
        ("name", wintypes.WCHAR * 260),
    )


class _MemoryCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS."""

    _fields_ = (
        ("size", wintypes.DWORD),
        ("page_faults", wintypes.DWORD),
        ("peak_working_set", ctypes.c_size_t),
        ("working_set", ctypes.c_size_t),
        ("quotas", ctypes.c_size_t * 4),
        ("pagefile", ctypes.c_size_t),
        ("peak_pagefile", ctypes.c_size_t),
    )


_kernel32 = win32.kernel32
_kernel32.CreateToolhelp32Snapshot.argtypes = (wintypes.DWORD, wintypes.DWORD)
_kernel32.CreateToolhelp32Snapshot.restype = wintypes.HANDLE
_kernel32.Process32FirstW.argtypes = (wintypes.HANDLE, ctypes.c_void_p)
_kernel32.Process32NextW.argtypes = (wintypes.HANDLE, ctypes.c_void_p)
_kernel32.K32GetProcessMemoryInfo.argtypes = (wintypes.HANDLE, ctypes.c_void_p, wintypes.DWORD)


def _parents() -> dict[int, int]:
    """Return the parent of each process. Raises OSError."""
    snapshot = _kernel32.CreateToolhelp32Snapshot(_SNAPSHOT_PROCESSES, 0)
    if snapshot is None or snapshot == _INVALID_HANDLE:
        raise win32.last_error()
    found: dict[int, int] = {}
    try:
        entry = _Entry(size=ctypes.sizeof(_Entry))
        more = _kernel32.Process32FirstW(snapshot, ctypes.byref(entry))
        while more:
            found[entry.process] = entry.parent
            more = _kernel32.Process32NextW(snapshot, ctypes.byref(entry))
    finally:
        win32.close(snapshot)
    return found


def children(pid: int) -> list[int]:
    """Return the children of `pid`, none if it has gone. Raises OSError."""
    begin = _begin(pid)
    return [
        child
        for child, parent in _parents().items()
        if parent == pid != child and _is_younger(child, begin)
    ]


def _begin(pid: int) -> float | None:
    """Return when a process began, None if it has gone or is another user's. Raises OSError."""
    try:
        with win32.process_handle(pid, win32.QUERY) as process:
            return win32.begin(process)
    except OSError as error:
        if error.winerror in (win32.INVALID_PARAMETER, win32.ACCESS_DENIED):
            return None
        raise


def _is_younger(child: int, begin: float | None) -> bool:
    """Tell whether a process began after its parent did, as far as both can be told."""
    its = _begin(child)
    return begin is not None and its is not None and its >= begin


def descendants(root: int) -> Iterator[int]:
    """Yield all descendants of `root`, parents first. Raises OSError."""
    parents = _parents()
    found = [root]
    for above in found:  # `found` grows during the loop
        below = [child for child, parent in parents.items() if parent == above]
        begin = _begin(above) if below else None
        for child in below:
            if child not in found and _is_younger(child, begin):
                found.append(child)
                yield child


def usage(root: int) -> tuple[float, int]:
    """Return the CPU seconds and the resident memory in bytes of all descendants of `root`.

    The time does not include processes that have ended.
    """
    used = [own_usage(pid) for pid in descendants(root)]
    return sum(time for time, _ in used), sum(memory for _, memory in used)


def own_usage(pid: int) -> tuple[float, int]:
    """Return the CPU seconds and the resident memory in bytes of one process, 0 if it has gone."""
    counters = _MemoryCounters(size=ctypes.sizeof(_MemoryCounters))
    try:
        with win32.process_handle(pid, win32.QUERY | win32.SYNCHRONIZE) as process:
            if win32.has_ended(process):
                return 0.0, 0  # though somebody still has it open
            win32.check(
                _kernel32.K32GetProcessMemoryInfo(
                    process, ctypes.byref(counters), ctypes.sizeof(counters)
                )
            )
            return win32.cpu_seconds(process), counters.working_set
    except OSError as error:
        if error.winerror in (win32.INVALID_PARAMETER, win32.ACCESS_DENIED):
            return 0.0, 0  # it has gone, or is another user's
        raise


def command_line(pid: int) -> list[bytes]:
    """Return the arguments of a process."""
    raise not_yet("the command lines of other processes")


def signal_tree(root: int, number: int) -> None:
    """Send STOP, CONTINUE or KILL to each descendant of `root` once. Raises OSError."""
    for pid in list(descendants(root)):
        send(pid, number)


def stop_round(root: int, number: int, signalled: set[int]) -> bool:
    """Suspend all descendants of `root` that are not in `signalled`, and add them to it.

    Returns True if there was no new one. Raises OSError.
    """
    new = [pid for pid in descendants(root) if pid not in signalled]
    for pid in new:
        signalled.add(pid)
        send(pid, number)
    return not new


def stands_still(pid: int) -> bool:
    """Tell whether one process is suspended or has ended."""
    raise not_yet("whether a process is suspended")


def sleeps(pid: int) -> bool:
    """Tell whether one process waits for something."""
    raise not_yet("whether a process waits")


def is_traced(pid: int) -> bool:
    """Return False: a debugged process can be suspended on Windows all the same."""
    return False


def send(pid: int, number: int) -> None:
    """Do what STOP, CONTINUE or KILL says to a process, which may have gone. Raises OSError."""
    try:
        match number:
            case 9:
                with win32.process_handle(pid, win32.TERMINATE) as process:
                    win32.check(_kernel32.TerminateProcess(process, _KILLED))
            case 19:
                with win32.process_handle(pid, win32.SUSPEND_RESUME) as process:
                    win32.suspend(process)
            case 18:
                with win32.process_handle(pid, win32.SUSPEND_RESUME) as process:
                    win32.resume(process)
            case _:
                raise not_yet("signals")
    except OSError as error:
        if error.winerror not in (win32.INVALID_PARAMETER, win32.ACCESS_DENIED):
            raise
