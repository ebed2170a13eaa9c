"""The host's resources on Linux and, in part, macOS; import it through `resources`."""

import os
import sys
from pathlib import Path

from boincvm.errors import HostError

assert sys.platform != "win32"

_MEMORY_TABLE = "/proc/meminfo"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_CPU_TABLE = "/proc/cpuinfo"
_TIMES = "/proc/stat"


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
        from boincvm.host.not_yet import not_yet

        raise not_yet("telling one boot of the host from another")


def processor_name() -> str:
    """Return the processor's name as the kernel tells it, or "" if it does not. Raises OSError."""
    if sys.platform == "linux":
        with Path(_CPU_TABLE).open("rb") as file:
            for line in file.read(4096).splitlines():
                if line.startswith((b"model name", b"Model")):
                    return line.partition(b":")[2].strip().decode(errors="replace")
        return ""
    else:
        from boincvm.host.not_yet import not_yet

        raise not_yet("the name of the processor")
