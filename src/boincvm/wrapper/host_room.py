"""Whether the host has room for a machine just now, before anything is begun."""

import os
from pathlib import Path

from boincvm.errors import HostError
from boincvm.sizes import format_size
from boincvm.wrapper.task_errors import NotEnoughRoomError

HYPERVISOR_MEMORY = 128 << 20
"""Bytes that the hypervisor itself needs beside the guest's memory."""
LEAST_DISK = 256 << 20
"""Bytes that a machine writes to its disk and its log without having done much."""


def check_room(slot: Path, memory: int) -> None:
    """For a machine with `memory` bytes whose files lie in `slot`; what its memory takes on
    disk when it is put to sleep counts too. Raises NotEnoughRoomError."""
    _compare("memory", _available_memory(), memory + HYPERVISOR_MEMORY)
    status = os.statvfs(slot)
    _compare("disk", status.f_bavail * status.f_frsize, memory + LEAST_DISK)


def _compare(what: str, free: int, needed: int) -> None:
    if free < needed:
        raise NotEnoughRoomError(
            f"the task needs {format_size(needed)} of {what}, and {format_size(free)} is free",
            hint=f"free {format_size(needed - free)} of {what}; the task is tried again later",
        )


def _available_memory() -> int:
    """What could be had without swapping, in bytes (proc(5), meminfo)."""
    with Path("/proc/meminfo").open("rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) << 10
    raise HostError("/proc/meminfo does not tell how much memory is available")
