"""The host's resources on Windows; import it through `resources`."""

import os

from boincvm.host.not_yet import not_yet


def most_open_files() -> int:
    """Return how many descriptors this process may have (Microsoft's C library, _setmaxstdio)."""
    return 8192


def processors() -> int:
    """Return how many processors this process may use."""
    return os.cpu_count() or 1


def usable_processors() -> list[int]:
    """Return the numbers of the processors that this process may use; empty if nobody can tell."""
    return []


def total_memory() -> int:
    """Return the host's memory in bytes."""
    raise not_yet("how much memory there is")


def available_memory() -> int:
    """Return the bytes of memory available without swapping."""
    raise not_yet("how much memory is free")


def used_memory() -> int:
    """Return the bytes of memory that are not available to a new program."""
    raise not_yet("how much memory is in use")


def busy_seconds() -> float:
    """Return the CPU seconds of all processors since boot."""
    raise not_yet("how busy the processors are")


def boot_id() -> str:
    """Return an id that changes with each boot of the host."""
    raise not_yet("telling one boot of the host from another")


def processor_name() -> str:
    """Return the processor's name."""
    raise not_yet("the name of the processor")
