"""Find out which of the machines that a selector matches can answer a request now."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.registry import SILENT_AFTER
from boincvm.controller.machines.machines import Machines
from boincvm.controller.machines.operations import MachineOperations
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.selector import parse_selector
from boincvm.controller.protocol.vm_state import Requests, VmState, refusal
from boincvm.errors import MachineStateError, UsageError

_MOST_NAMED = 5


class FoundGuests(NamedTuple):
    """The guests that a selector matches."""

    guests: list[Guest]
    """Those that can answer."""
    refused: dict[str, MachineStateError]
    """By id, why those that cannot answer cannot, and what would help.

    Machines that are off, or of whose host nothing is heard, are included only if no machine can
    answer: a pattern means the machines that run.
    """

    def required(self, vms: str) -> "FoundGuests":
        """Return itself. Raises MachineStateError if no guest can answer."""
        if not self.guests:
            raise _nobody(vms, self.refused)
        return self


class GuestFinder:
    """Finds the guests that can answer; `state_of` returns a machine's state and the reason."""

    def __init__(
        self,
        machines: Machines,
        hub: Hub,
        operations: MachineOperations,
        state_of: Callable[[str], tuple[VmState, str]],
    ) -> None:
        self._machines = machines
        self._hub = hub
        self._operations = operations
        self._state_of = state_of

    async def find(self, vms: str, *, held_too: bool = True) -> FoundGuests:
        """Return the guests that can answer, and errors for the others.

        This waits only for machines whose shims are just joining the bus and, unless `held_too`,
        for machines that hold requests until they are up. Raises UsageError if `vms` matches no
        machine, BusError if the broker is away.
        """
        targets = self._operations.targets(parse_selector(vms))
        if not targets:
            raise UsageError(f"{vms[:80]!r} matches no machine", hint="boincvm ls shows them")
        await self._hub.until_connected()
        async with asyncio.TaskGroup() as group:
            tasks = {
                vm: group.create_task(self._guest_for(vm, held_too=held_too)) for vm in targets
            }
        found = {vm: task.result() for vm, task in tasks.items()}
        guests = [result for result in found.values() if isinstance(result, Guest)]
        refused = {
            vm: result for vm, result in found.items() if isinstance(result, MachineStateError)
        }
        if guests:
            refused = {
                vm: error
                for vm, error in refused.items()
                if not (self._state_of(vm)[0].is_off or self._is_out_of_sight(vm))
            }
        return FoundGuests(guests, refused)

    async def _guest_for(self, vm: str, *, held_too: bool) -> Guest | MachineStateError:
        registry, machine = self._hub.registry, self._machines.find(vm)
        loop = asyncio.get_running_loop()
        until = loop.time() + SILENT_AFTER
        while True:
            if machine is not None:
                machine.find_shim()
            state, why = self._state_of(vm)
            guest = registry.get(vm)
            requests = state.meaning.requests
            if requests is Requests.REFUSED:
                return refusal(vm, state, why)
            if guest and (requests is Requests.ANSWERED or held_too or machine is None):
                return guest
            if guest and machine is not None:
                await machine.until_not(state)
                continue
            if self._is_out_of_sight(vm):
                return refusal(vm, state, why)
            if loop.time() >= until or (machine is None and requests is not Requests.HELD):
                return refusal(vm, VmState.STUCK, "it has not connected to the bus")
            waits: list[asyncio.Future[object]] = [asyncio.ensure_future(registry.wait_for(vm))]
            if machine is not None:
                waits.append(asyncio.ensure_future(machine.until_not(state)))
            try:
                await asyncio.wait(
                    waits, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)

    def _is_out_of_sight(self, vm: str) -> bool:
        """Tell whether nothing is known of another host's machine: it is probably off."""
        is_elsewhere = self._machines.find(vm) is None and self._hub.registry.get(vm) is None
        return is_elsewhere and self._state_of(vm)[0] is VmState.UNKNOWN


def _nobody(vms: str, refused: dict[str, MachineStateError]) -> MachineStateError:
    first = next(iter(refused.values()))
    if len(refused) == 1:
        return first
    named = "; ".join(error.message for error in list(refused.values())[:_MOST_NAMED])
    more = "; …" if len(refused) > _MOST_NAMED else ""
    return MachineStateError(
        f"none of the {len(refused)} machines that {vms[:80]!r} matches can answer: {named}{more}",
        hint=first.hint,
    )
