"""What the host has, on Windows; `resources` is the face."""

import os

from boincvm.host.not_yet import not_yet


def most_open_files() -> int:
    """How many descriptors this process may have (Microsoft's C library, _setmaxstdio)."""
    return 8192


def processors() -> int:
    """How many processors this process may use."""
    return os.cpu_count() or 1


def total_memory() -> int:
    """Bytes of memory that the host has."""
    raise not_yet("how much memory there is")


def available_memory() -> int:
    """Bytes that could be had without swapping."""
    raise not_yet("how much memory is free")


def used_memory() -> int:
    """Bytes that no new program could have."""
    raise not_yet("how much memory is in use")


def busy_seconds() -> float:
    """CPU time of all processors since the host's start."""
    raise not_yet("how busy the processors are")


def boot_id() -> str:
    """What is another one after each start of the host."""
    raise not_yet("telling one start of the host from another")


def processor_name() -> str:
    """The host's processor, as its kernel names it."""
    raise not_yet("the name of the processor")
