"""What a machine takes of the host: CPU time, and memory, which a balloon can make less."""

import time
from collections.abc import Callable

from boincvm.hypervisor.contract import Balloon, GuestMemory, Machine

_LITTLE = 16 << 20
"""Bytes by which less memory is not worth the guest's time."""


class Usage:
    """Add up the CPU time of a machine's processes, of which one may follow the other."""

    def __init__(self) -> None:
        self._before = self._now = 0.0

    def seconds(self, machine: Machine | None) -> float:
        """Return the CPU time so far; once a process has ended it tells nothing any more."""
        usage = machine.usage() if machine is not None else None
        if usage is not None:
            self._now = max(self._now, usage.cpu_seconds)
        return self._before + self._now

    def begin_anew(self) -> None:
        """Count the next process's time from nothing, in addition."""
        self._before, self._now = self._before + self._now, 0.0


def resident(machine: Machine) -> int:
    """Return the bytes of memory that the machine has now."""
    usage = machine.usage()
    return usage.resident if usage is not None else 0


class MemoryHold:
    """Remember how much memory a guest was given, and give it more or less."""

    def __init__(self, size: int | None) -> None:
        """`size`: bytes that it has; None: it was saved, and has what it had then."""
        self._size = size
        self._set_at = 0.0

    async def hold(
        self,
        balloon: Balloon,
        choose: Callable[[GuestMemory | None], int | None],
        settling: float,
    ) -> int | None:
        """Do what `ManagedMachine.hold_memory` says."""
        size = choose(None)
        if size is None:
            guest = await balloon.memory()
            if guest is None or guest.at < self._set_at + settling:
                return None
            size = choose(guest)
        if size is None:
            return None
        if self._size is None or not self._size - _LITTLE < size <= self._size:
            await balloon.set_memory(size)
            self._size, self._set_at = size, time.time()
        return self._size
