"""Job objects: processes that end together, and with the process that holds the job.

(learn.microsoft.com/windows/win32/procthread/job-objects) A process of a job cannot leave it, and
its children belong to it, too. When the last handle of the job is closed, which Windows does
however its holder ends, all of them are terminated.
"""

import ctypes
import sys
from collections.abc import Callable
from ctypes import wintypes

from boincvm.host import win32_windows as win32

assert sys.platform == "win32"

_KILL_ON_JOB_CLOSE = 0x2000
_BASIC_ACCOUNTING, _BASIC_PROCESS_ID_LIST, _EXTENDED_LIMIT_INFORMATION = 1, 3, 9
_100_NANOSECONDS = 1e-7
_MORE_DATA = 234
_RIGHTS = win32.SUSPEND_RESUME | 0x0400
"""PROCESS_QUERY_INFORMATION: Windows wants no more than the limited right, but wine does."""
_SUSPEND_ROUNDS = 100
_MOST_PROCESSES = 1 << 16


class _BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION."""

    _fields_ = (
        ("process_time", ctypes.c_int64),
        ("job_time", ctypes.c_int64),
        ("flags", wintypes.DWORD),
        ("least_working_set", ctypes.c_size_t),
        ("most_working_set", ctypes.c_size_t),
        ("most_processes", wintypes.DWORD),
        ("affinity", ctypes.c_size_t),
        ("priority_class", wintypes.DWORD),
        ("scheduling_class", wintypes.DWORD),
    )


class _Accounting(ctypes.Structure):
    """JOBOBJECT_BASIC_ACCOUNTING_INFORMATION: times in units of 100 ns."""

    _fields_ = (
        ("user_time", ctypes.c_int64),
        ("kernel_time", ctypes.c_int64),
        ("user_time_of_period", ctypes.c_int64),
        ("kernel_time_of_period", ctypes.c_int64),
        ("counts", wintypes.DWORD * 4),
    )


class _ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("basic", _BasicLimits),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    )


win32.kernel32.CreateJobObjectW.argtypes = (ctypes.c_void_p, wintypes.LPCWSTR)
win32.kernel32.CreateJobObjectW.restype = wintypes.HANDLE
win32.kernel32.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
win32.kernel32.IsProcessInJob.argtypes = (wintypes.HANDLE, wintypes.HANDLE, ctypes.c_void_p)
win32.kernel32.TerminateJobObject.argtypes = (wintypes.HANDLE, wintypes.UINT)
win32.kernel32.SetInformationJobObject.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
)
win32.kernel32.QueryInformationJobObject.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
)


class JobObject:
    """A job whose processes are terminated when it is closed, or when this process ends."""

    def __init__(self) -> None:
        """Make a job without processes. Raises OSError."""
        self._handle = 0
        handle: int | None = win32.kernel32.CreateJobObjectW(None, None)
        if not handle:
            raise win32.last_error()
        self._handle = handle
        limits = _ExtendedLimits()
        limits.basic.flags = _KILL_ON_JOB_CLOSE
        win32.check(
            win32.kernel32.SetInformationJobObject(
                handle, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), ctypes.sizeof(limits)
            )
        )

    def add(self, process: int) -> None:
        """Add a process, given by a handle with the rights TERMINATE and SET_QUOTA.

        Raises OSError.
        """
        win32.check(win32.kernel32.AssignProcessToJobObject(self._handle, process))

    def process_ids(self) -> list[int]:
        """Return the ids of the processes that have not ended. Raises OSError."""
        room = 64
        while room <= _MOST_PROCESSES:
            # JOBOBJECT_BASIC_PROCESS_ID_LIST: two counts and the ids
            ids_at = 2 * ctypes.sizeof(wintypes.DWORD)
            answer = ctypes.create_string_buffer(ids_at + room * ctypes.sizeof(ctypes.c_size_t))
            result = win32.kernel32.QueryInformationJobObject(
                self._handle, _BASIC_PROCESS_ID_LIST, answer, len(answer), None
            )
            assigned, listed = (wintypes.DWORD * 2).from_buffer(answer)
            if result and listed >= assigned:
                return list((ctypes.c_size_t * listed).from_buffer(answer, ids_at))
            if not result and ctypes.get_last_error() != _MORE_DATA:
                raise win32.last_error()
            room *= 2
        raise OSError("a job has too many processes")

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all processes, also of those that have ended. Raises OSError.

        wine does not count them: it says 0.
        """
        used = _Accounting()
        win32.check(
            win32.kernel32.QueryInformationJobObject(
                self._handle, _BASIC_ACCOUNTING, ctypes.byref(used), ctypes.sizeof(used), None
            )
        )
        return float(used.user_time + used.kernel_time) * _100_NANOSECONDS

    def suspend(self) -> None:
        """Suspend all processes, also those that start meanwhile. Raises OSError."""
        suspended: set[int] = set()
        for _ in range(_SUSPEND_ROUNDS):
            new = set(self.process_ids()) - suspended
            if not new:
                return
            for pid in new:
                self._each(pid, win32.suspend)
            suspended |= new

    def resume(self) -> None:
        """Let all processes go on that `suspend` has suspended. Raises OSError."""
        for pid in self.process_ids():
            self._each(pid, win32.resume)

    def terminate(self, code: int = 1) -> None:
        """End all processes at once, with the exit code `code`, unless it is closed.

        Raises OSError.
        """
        if self._handle:
            win32.check(win32.kernel32.TerminateJobObject(self._handle, code))

    def close(self) -> None:
        """Give the job up, which terminates its processes. Idempotent."""
        if self._handle:
            win32.close(self._handle)
            self._handle = 0

    def __del__(self) -> None:
        """Close it: an object that nobody has any more ends its processes."""
        self.close()

    def _each(self, pid: int, action: Callable[[int], None]) -> None:
        """Do something with a process of the job, unless it has ended meanwhile. Raises OSError."""
        try:
            process = win32.open_process_handle(pid, _RIGHTS)
        except OSError as error:
            # Its id is nobody's, or already that of a process that we may not even open.
            if error.winerror not in (win32.INVALID_PARAMETER, win32.ACCESS_DENIED):
                raise
            return
        try:
            if self._has(process):
                action(process)
        finally:
            win32.close(process)

    def _has(self, process: int) -> bool:
        """Tell whether a process, given by a handle with _RIGHTS, belongs to the job."""
        is_in_job = wintypes.BOOL()
        win32.check(win32.kernel32.IsProcessInJob(process, self._handle, ctypes.byref(is_in_job)))
        return bool(is_in_job.value)
