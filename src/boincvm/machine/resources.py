"""Tracks the host resources of a machine: CPU time, and memory that a balloon can reduce."""

import time
from collections.abc import Callable

from boincvm.hypervisor.contract import Balloon, GuestMemory, Machine

_LITTLE = 16 << 20
"""Reductions of memory by fewer bytes than this are not worth the guest's time."""


class Usage:
    """The total CPU time of a machine's successive processes."""

    def __init__(self) -> None:
        self._before = self._now = 0.0

    def seconds(self, machine: Machine | None) -> float:
        """Return the CPU time so far; a process that has ended can no longer be measured."""
        usage = machine.usage() if machine is not None else None
        if usage is not None:
            self._now = max(self._now, usage.cpu_seconds)
        return self._before + self._now

    def start_process(self) -> None:
        """Count the next process from zero, on top of the total so far."""
        self._before, self._now = self._before + self._now, 0.0


def resident(machine: Machine) -> int:
    """Return the bytes of host memory that the machine uses now."""
    usage = machine.usage()
    return usage.resident if usage is not None else 0


class MemoryHold:
    """The memory that a guest was given, with a way to change it."""

    def __init__(self, size: int | None) -> None:
        """Start from `size` bytes; None: it was restored, with its memory as it was saved."""
        self._size = size
        self._set_at = 0.0

    async def hold(
        self,
        balloon: Balloon,
        choose: Callable[[GuestMemory | None], int | None],
        settle_time: float,
    ) -> int | None:
        """Change the guest's memory as described at `ManagedMachine.hold_memory`."""
        size = choose(None)
        if size is None:
            guest = await balloon.memory()
            if guest is None or guest.at < self._set_at + settle_time:
                return None
            size = choose(guest)
        if size is None:
            return None
        if self._size is None or not self._size - _LITTLE < size <= self._size:
            await balloon.set_memory(size)
            self._size, self._set_at = size, time.time()
        return self._size
