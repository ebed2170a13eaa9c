"""Keeps running machines within the volunteer's memory preferences.

The client suspends tasks that use more than the preference of the moment allows (computer in use,
or idle). Machines are kept within the larger of the two, so that they give back what they may never
have, but do not shrink and grow with every touch of the keyboard.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from boincvm.boinc import InitData
from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import GuestMemory
from boincvm.machine.host_capacity import HYPERVISOR_MEMORY
from boincvm.machine.managed import ManagedMachine
from boincvm.sizes import format_size
from boincvm.wrapper.log import log

CHECK_PERIOD = 5.0
"""Seconds between two checks of guests that are held below their size; others are not checked."""
ROOM = 48 << 20
"""Bytes that a guest gets in addition to what it needs. With 18 MiB an idle one still answered, but
one that had to give up what its program used did nothing else for minutes."""
LEAST = 96 << 20
"""Smallest size, in bytes; an idle guest of the base image uses 78 MiB, including its kernel."""
SETTLE_TIME = 2.0
"""Seconds that a guest takes to reach a new size; until then its figures do not agree."""


def allowed_memory(init_data: InitData, machines: int) -> float:
    """Return the bytes that each of `machines` guests may have by the volunteer's preferences.

    At least 0; infinity if the client gave no usable figure. The hypervisors' own memory is already
    subtracted.
    """
    preferences = init_data.preferences
    share = max(preferences.ram_busy_fraction, preferences.ram_idle_fraction)
    allowed = init_data.host_memory * min(share, 1.0)
    if not allowed > 0:  # true for NaN, too
        return float("inf")
    return max(allowed / max(machines, 1) - HYPERVISOR_MEMORY, 0.0)


def memory_for(size: int, allowed: float, guest: GuestMemory | None) -> int | None:
    """Return how many of its `size` bytes a guest should have now, or None to leave it as it is.

    That is what is allowed, or more if the guest needs more by its own figures, `guest`. A guest
    that is short of memory gets all, because it may need far more than it shows. None means that it
    has reported nothing yet.
    """
    if allowed >= size:
        return size
    if guest is None:
        return None
    if guest.available < ROOM // 2:
        return size
    needed = guest.size - guest.available + ROOM
    return min(max(int(allowed), needed, LEAST), size) & -(1 << 20)


class MemoryLimit:
    """Keeps all `machines`, by their names, within what `init_data` allows."""

    def __init__(
        self, init_data: Callable[[], InitData], machines: Mapping[str, ManagedMachine]
    ) -> None:
        self._init_data = init_data
        self._machines = machines
        self._news = asyncio.Event()
        self._reported: dict[ManagedMachine, float] = {}
        self._refused: set[ManagedMachine] = set()

    def recheck(self) -> None:
        """Take note that the preferences or the machines have changed."""
        self._news.set()

    async def run(self) -> None:
        """Adjust the machines' memory until cancelled."""
        while True:
            allowed = self._allowed()
            # Guests are checked periodically only if one of them is held below its size.
            is_held = any(allowed < machine.size for machine in self._machines.values())
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_PERIOD if is_held else None):
                    await self._news.wait()
            self._news.clear()
            for name, machine in tuple(self._machines.items()):
                await self._hold(name, machine)

    def _allowed(self) -> float:
        return allowed_memory(self._init_data(), len(self._machines))

    async def _hold(self, name: str, machine: ManagedMachine) -> None:
        if machine in self._refused:
            return
        allowed = self._allowed()
        try:
            size = await machine.hold_memory(
                lambda guest: memory_for(machine.size, allowed, guest), SETTLE_TIME
            )
        except HypervisorError as error:
            self._refused.add(machine)
            log(f"the memory of the machine {name} stays as it is: {error.message}")
            return
        before = self._reported.get(machine, float("inf"))
        if size is None or min(allowed, machine.size) == min(before, machine.size):
            return
        self._reported[machine] = allowed
        log(
            f"the machine {name} has {format_size(size)} of its {format_size(machine.size)} of"
            f" memory: {_why(size, allowed)}"
        )


def _why(size: int, allowed: float) -> str:
    if size <= allowed:
        return "as the volunteer's preferences allow"
    return f"the volunteer's preferences allow {format_size(int(allowed))}, and it needs more"
