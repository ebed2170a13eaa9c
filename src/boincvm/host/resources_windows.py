"""The host's resources on Windows; import it through `resources`."""

import ctypes
import os
import sys
from ctypes import wintypes

from boincvm.host import win32_windows as win32

assert sys.platform == "win32"

_PROCESSOR_KEY = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
_TIME_OF_DAY = 3


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX."""

    _fields_ = (
        ("size", wintypes.DWORD),
        ("load", wintypes.DWORD),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 5),
    )


class _TimeOfDay(ctypes.Structure):
    """SYSTEM_TIMEOFDAY_INFORMATION: times in units of 100 ns."""

    _fields_ = (
        ("booted", ctypes.c_int64),
        ("now", ctypes.c_int64),
        ("zone_bias", ctypes.c_int64),
        ("zone", wintypes.ULONG),
        ("reserved", wintypes.ULONG),
        ("boot_bias", ctypes.c_uint64),
        ("sleep_bias", ctypes.c_uint64),
    )


def most_open_files() -> int:
    """Return how many descriptors this process may have (Microsoft's C library, _setmaxstdio)."""
    return 8192


def processors() -> int:
    """Return how many processors this process may use."""
    return len(usable_processors()) or os.cpu_count() or 1


def usable_processors() -> list[int]:
    """Return the numbers of the processors that this process may use; empty if nobody can tell."""
    process, system = ctypes.c_size_t(), ctypes.c_size_t()
    ours = win32.kernel32.GetCurrentProcess()
    if not win32.kernel32.GetProcessAffinityMask(
        wintypes.HANDLE(ours), ctypes.byref(process), ctypes.byref(system)
    ):
        return []
    return [number for number in range(64) if process.value >> number & 1]


def total_memory() -> int:
    """Return the host's memory in bytes. Raises OSError."""
    return int(_memory().total)


def available_memory() -> int:
    """Return the bytes of memory available without swapping. Raises OSError."""
    return int(_memory().available)


def used_memory() -> int:
    """Return the bytes of memory that are not available to a new program. Raises OSError."""
    memory = _memory()
    return int(memory.total - memory.available)


def busy_seconds() -> float:
    """Return the CPU seconds of all processors since boot. Raises OSError."""
    idle, system, user = (wintypes.FILETIME() for _ in range(3))
    win32.check(
        win32.kernel32.GetSystemTimes(ctypes.byref(idle), ctypes.byref(system), ctypes.byref(user))
    )
    # The system's time includes the idle time.
    return win32.seconds(system) + win32.seconds(user) - win32.seconds(idle)


def boot_id() -> str:
    """Return an id that changes with each boot of the host. Raises OSError."""
    times = _TimeOfDay()
    status: int = win32.ntdll.NtQuerySystemInformation(
        _TIME_OF_DAY, ctypes.byref(times), ctypes.sizeof(times), None
    )
    if status < 0:
        raise ctypes.WinError(win32.ntdll.RtlNtStatusToDosError(status))
    # The time of the boot is moved with the clock, and so is its bias.
    return f"{times.booted - times.boot_bias:x}"


def processor_architecture() -> str:
    """Return the processor's architecture by the name that Linux gives it, like "x86_64"."""
    name = os.environ.get("PROCESSOR_ARCHITECTURE", "")
    return {"AMD64": "x86_64", "ARM64": "aarch64"}.get(name, name)


def processor_name() -> str:
    """Return the processor's name. Raises OSError."""
    import winreg

    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _PROCESSOR_KEY) as key:
        return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()


def _memory() -> _MemoryStatus:
    status = _MemoryStatus(size=ctypes.sizeof(_MemoryStatus))
    win32.check(win32.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)))
    return status
