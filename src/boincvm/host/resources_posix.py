"""The host's resources on Linux and, in part, macOS; import it through `resources`."""

import os
import sys
from pathlib import Path
from typing import Protocol

from boincvm.errors import HostError

assert sys.platform != "win32"

_MEMORY_TABLE = "/proc/meminfo"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_CPU_TABLE = "/proc/cpuinfo"
_NUMBERS = ("CPU implementer", "CPU variant", "CPU part", "CPU revision")
_TIMES = "/proc/stat"
_LONGEST_VALUE = 256


def most_open_files() -> int:
    """Return how many descriptors this process may have."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def processors() -> int:
    """Return how many processors this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    else:
        return os.cpu_count() or 1


def usable_processors() -> list[int]:
    """Return the numbers of the processors that this process may use; empty if nobody can tell."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    else:
        return []


def total_memory() -> int:
    """Return the host's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_memory() -> int:
    """Return the bytes of memory available without swapping (proc(5), meminfo).

    Raises OSError, HostError.
    """
    if sys.platform == "linux":
        with Path(_MEMORY_TABLE).open("rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) << 10
        raise HostError(f"{_MEMORY_TABLE} does not report how much memory is available")
    else:
        from boincvm.host.not_yet import not_yet

        raise not_yet("how much memory is free")


def used_memory() -> int:
    """Return the bytes of memory that are not available to a new program. Raises OSError."""
    if sys.platform == "linux":
        lines = Path(_MEMORY_TABLE).read_text().splitlines()
        found = {
            name: int(text.split()[0]) << 10 for name, _, text in (x.partition(":") for x in lines)
        }
        return max(found["MemTotal"] - found["MemAvailable"], 0)
    else:
        from boincvm.host.not_yet import not_yet

        raise not_yet("how much memory is in use")


def busy_seconds() -> float:
    """Return the CPU seconds of all processors since boot, without idle time. Raises OSError."""
    if sys.platform == "linux":
        first = Path(_TIMES).read_text().split("\n", 1)[0]
        user, nice, system, _idle, _waiting, *rest = map(int, first.split()[1:9])
        return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
    else:
        from boincvm.host.not_yet import not_yet

        raise not_yet("how busy the processors are")


def boot_id() -> str:
    """Return an id that changes with each boot of the host. Raises OSError."""
    if sys.platform == "linux":
        return Path(_BOOT_ID).read_text().strip()
    else:
        return macos_value("kern.bootsessionuuid")


def processor_architecture() -> str:
    """Return the processor's architecture by the name that Linux gives it, like "x86_64"."""
    name = os.uname().machine
    return "aarch64" if name == "arm64" else name


def processor_name() -> str:
    """Return the processor's name as the kernel tells it, or "" if it does not. Raises OSError.

    AArch64 has numbers for a name: who made it, and what of theirs it is.
    """
    if sys.platform == "linux":
        numbers: dict[str, str] = {}
        with Path(_CPU_TABLE).open("rb") as file:
            for line in file.read(4096).splitlines():
                name, _, value = line.decode(errors="replace").partition(":")
                if name.startswith(("model name", "Model")):
                    return value.strip()
                if name.strip() in _NUMBERS:
                    numbers.setdefault(name.strip(), value.strip())
        return " ".join(numbers.values())
    else:
        return macos_value("machdep.cpu.brand_string")


class SystemLibrary(Protocol):
    """The one function of macOS' library that is needed here: sysctl(3)."""

    def sysctlbyname(
        self, name: bytes, value: object, size: object, new: None, new_size: int, /
    ) -> int: ...


def macos_value(name: str, library: SystemLibrary | None = None) -> str:
    """Return a text that macOS knows by a name, like "kern.bootsessionuuid". Raises OSError.

    Nobody has run it on macOS yet; `library` is a stand-in for tests.
    """
    import ctypes

    calls = ctypes.CDLL(None, use_errno=True) if library is None else library
    value = ctypes.create_string_buffer(_LONGEST_VALUE)
    size = ctypes.c_size_t(len(value))
    if calls.sysctlbyname(name.encode(), value, ctypes.byref(size), None, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    return value.value.decode(errors="replace")
