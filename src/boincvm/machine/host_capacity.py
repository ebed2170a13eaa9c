"""Checks that the host has room for a machine or for files before anything is started."""

import os
from pathlib import Path

from boincvm.errors import HostDiskFullError
from boincvm.host.files import allocated_size, free_space
from boincvm.host.resources import available_memory
from boincvm.machine.errors import NoRoomForCheckpointError, NotEnoughRoomError
from boincvm.sizes import format_size

HYPERVISOR_MEMORY = 128 << 20
"""Bytes that the hypervisor needs in addition to the guest's memory."""
LEAST_DISK = 256 << 20
"""Bytes that even an almost idle machine writes to its disk and its log."""
RESERVE = 16 << 20
"""Bytes of the disk that a checkpoint leaves free."""


def check_room(slot: Path, memory: int) -> None:
    """Check that the host has room for a machine of `memory` bytes with its files in `slot`.

    This includes the disk space for its memory when it is saved. Raises NotEnoughRoomError.
    """
    _compare("memory", available_memory(), memory + HYPERVISOR_MEMORY)
    _compare("disk", free_space(slot), memory + LEAST_DISK)


def _compare(what: str, free: int, needed: int) -> None:
    if free < needed:
        raise NotEnoughRoomError(
            f"the task needs {format_size(needed)} of {what}, but only {format_size(free)} is free",
            hint=f"free {format_size(needed - free)} of {what}; the task is tried again later",
        )


def check_fits(what: str, size: int, directory: Path, *, hint: str) -> None:
    """Check that `what`, files of `size` bytes, fit on the disk of `directory`.

    Raises HostDiskFullError, OSError.
    """
    free = free_space(directory)
    if size > free:
        raise HostDiskFullError(
            f"{what} have {format_size(size)}, but the disk has only {format_size(free)} left",
            hint=hint,
        )


def check_checkpoint_room(directory: Path, needed: int, slot: Path, disk_bound: float) -> None:
    """Check that there is room for a checkpoint of `needed` bytes in `directory`.

    `disk_bound`: bytes that the project allows for `slot`, 0 for no bound. Raises
    NoRoomForCheckpointError.
    """
    free = max(free_space(directory) - RESERVE, 0)
    if free < needed:
        raise NoRoomForCheckpointError(
            f"a checkpoint needs up to {format_size(needed)} of disk, and {format_size(free)} is"
            " free",
            hint="the previous one is kept; free some space on the disk",
        )
    used = disk_usage(slot) if disk_bound > 0 else 0
    if used + needed > disk_bound > 0:
        raise NoRoomForCheckpointError(
            f"a checkpoint needs up to {format_size(needed)}, and the task has {format_size(used)}"
            f" of the {format_size(int(disk_bound))} that it may use on disk",
            hint="the previous one is kept; the project must give the task a larger rsc_disk_bound",
        )


def disk_usage(directory: Path) -> int:
    """Return the bytes that files beneath `directory` take on the disk; follow no links."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += allocated_size(os.lstat(os.path.join(folder, name)))  # noqa: PTH118
            except FileNotFoundError:
                continue  # it has just been removed
    return total
