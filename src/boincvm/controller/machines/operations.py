"""Run lifecycle operations on machines: on each that a selector matches, independently."""

import asyncio
import platform
from collections.abc import Awaitable, Callable, Mapping

from boincvm.controller.guests.hub import Hub
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.machines.machines import Machines
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.selector import Selector, parse_selector
from boincvm.controller.protocol.vm_state import VmState, refusal
from boincvm.errors import BoincvmError, GuestDiedError, HostError, UsageError, host_error
from boincvm.json_value import Json
from boincvm.shim.snapshots import Snapshots
from boincvm.shim.verbs import ENDS

ASK_LIMIT = 600.0
"""Seconds that a shim may take for any request."""
PATIENCE = 60.0
"""Seconds after which a shim that was told to power off is killed, and its machine with it."""

Options = Mapping[str, Json]
Table = dict[str, Json]
_REMOTE = ("pause", "resume", "save", "stop", "power_off", "snapshot_take", "snapshot_remove")


class MachineOperations:
    """Operations on `machines` of this host, and on those of other hosts over the bus."""

    def __init__(self, machines: Machines, hub: Hub) -> None:
        self._machines = machines
        self._hub = hub
        self._local: dict[str, Callable[[LocalMachine, Options], Awaitable[Table]]] = {
            "start": self._start,
            "reset": self._reset,
            "discard": self._discard,
            "remove": self._remove,
            "snapshot_list": self._snapshot_list,
            "snapshot_restore": self._snapshot_restore,
            "snapshot_remove": self._snapshot_remove,
            "stop": self._end,
            "power_off": self._end,
            "save": self._save,
        }

    def targets(self, selector: Selector) -> list[str]:
        """Return the ids of all machines of this host and guests on the bus that it matches."""
        local = [
            machine.id for machine in self._machines.all() if selector.matches(as_guest(machine))
        ]
        known = set(local)
        found = self._hub.registry.find(selector)
        return sorted([*local, *(guest.id for guest in found if guest.id not in known)])

    async def each(self, vms: str, verb: str, options: Options) -> Table:
        """Return the outcomes by id. Raises UsageError if `vms` matches no machine."""
        targets = self.targets(parse_selector(vms))
        if not targets:
            raise UsageError(f"{vms[:80]!r} matches no machine", hint="boincvm ls shows them")
        async with asyncio.TaskGroup() as group:
            tasks = {vm: group.create_task(self._outcome(vm, verb, options)) for vm in targets}
        return {vm: task.result() for vm, task in tasks.items()}

    async def _outcome(self, vm: str, verb: str, options: Options) -> Table:
        try:
            return await self.run(vm, verb, options)
        except BoincvmError as error:
            return {"error": {**error.table()}}

    async def run(self, vm: str, verb: str, options: Options) -> Table:
        """Run an operation on one machine and return its result. Raises BoincvmError."""
        machine = self._machines.find(vm)
        if machine is None:
            return await self._ask_elsewhere(vm, verb, options)
        machine.find_shim()
        try:
            act = self._local.get(verb)
            result = await (act(machine, options) if act else self._ask(machine, verb, options))
        except OSError as error:
            raise host_error("the host's system refused", error) from error
        return {"state": str(machine.state), **result}

    async def _ask_elsewhere(self, vm: str, verb: str, options: Options) -> Table:
        guest = self._guest(vm)
        if "life" not in guest.capabilities:
            raise UsageError(
                f"{vm} is not a machine of the controller, and cannot be told to"
                f" {verb.replace('_', ' ')}",
                hint=f"it is a host itself, to be managed on {guest.host or 'where it runs'}",
            )
        if verb not in _REMOTE:
            raise UsageError(
                f"{vm} is not a machine of this host, and cannot be told to"
                f" {verb.replace('_', ' ')}",
                hint="ask the controller of its own host",
            )
        reply = await self._hub.requester.ask(guest, verb, options, within=ASK_LIMIT)
        return _plain(reply.table)

    def _guest(self, vm: str) -> Guest:
        guest = self._hub.registry.get(vm)
        if guest is None:
            raise UsageError(f"there is no machine {vm[:64]!r}", hint="boincvm ls shows them")
        return guest

    async def _ask(self, machine: LocalMachine, verb: str, options: Options) -> Table:
        """Send a request to a machine's shim, which may end without an answer."""
        await machine.until(lambda: not machine.is_ending)
        if not machine.has_shim or (machine.state is VmState.STUCK and verb != "power_off"):
            raise refusal(machine.id, machine.state, machine.why)
        ended = asyncio.ensure_future(machine.until(lambda: _is_lost(machine)))
        answer = asyncio.ensure_future(self._ask_when_there(machine, verb, options))
        try:
            await asyncio.wait((ended, answer), return_when=asyncio.FIRST_COMPLETED)
            # If the shim has ended, that tells more than its missing answer.
            if answer.done() and not (
                isinstance(answer.exception(), GuestDiedError) and _is_lost(machine)
            ):
                return answer.result()
        finally:
            ended.cancel()
            answer.cancel()
            await asyncio.gather(ended, answer, return_exceptions=True)
        if verb in ENDS and machine.state is not VmState.STUCK:
            return {}
        raise self._has_ended(machine, verb)

    @staticmethod
    def _has_ended(machine: LocalMachine, verb: str) -> HostError:
        return HostError(
            f"the machine {machine.id} did not answer {verb.replace('_', ' ')}:"
            f" it is {machine.state.label}{machine.why and ': '}{machine.why}",
            hint=machine.state.meaning.remedy.format(vm=machine.id),
        )

    async def _ask_when_there(self, machine: LocalMachine, verb: str, options: Options) -> Table:
        if verb != "power_off":
            await machine.until(lambda: machine.state is not VmState.STARTING)
        try:
            async with asyncio.timeout(ASK_LIMIT):
                guest = await self._hub.registry.wait_for(machine.id)
        except TimeoutError:
            raise HostError(
                f"the shim of the machine {machine.id} has not connected to the bus",
                hint=f"see boincvm logs {machine.id}; boincvm stop --now {machine.id} ends it",
            ) from None
        reply = await self._hub.requester.ask(guest, verb, options, within=ASK_LIMIT)
        return _plain(reply.table)

    # Operations on machines of this host.

    async def _start(self, machine: LocalMachine, _options: Options) -> Table:
        """Make a machine run, whatever state it is in."""
        while True:
            await machine.until(lambda: not machine.is_ending)
            state = machine.state
            if state.is_off:
                await self._machines.start(machine)
                return {}
            if state is VmState.RUNNING:
                return {}
            if state is VmState.STUCK:
                raise refusal(machine.id, state, machine.why)
            if state is VmState.PAUSED:
                await self._ask(machine, "resume", {})
            await machine.until_not(state)

    async def _end(self, machine: LocalMachine, options: Options) -> Table:
        if not machine.has_shim:
            return {}  # it is off already
        if "within" in options:
            await self._ask(machine, "stop", options)
        else:
            await self._power_off(machine)
        await machine.until(lambda: not machine.has_shim)
        return {}

    async def _power_off(self, machine: LocalMachine) -> None:
        try:
            async with asyncio.timeout(0 if machine.state is VmState.STUCK else PATIENCE):
                await self._ask(machine, "power_off", {})
                await machine.until(lambda: not machine.has_shim)
        except TimeoutError:
            machine.kill_shim()

    async def _save(self, machine: LocalMachine, options: Options) -> Table:
        if not machine.has_shim and machine.state is VmState.SAVED:
            return {}
        await self._ask(machine, "save", options)
        await machine.until(lambda: not machine.has_shim)
        if machine.state is not VmState.SAVED:
            raise self._has_ended(machine, "save")
        return {}

    async def _reset(self, machine: LocalMachine, options: Options) -> Table:
        await self._end(machine, options)
        if machine.state is VmState.SAVED:
            self._machines.discard(machine)
        await self._machines.start(machine)
        return {}

    async def _discard(self, machine: LocalMachine, _options: Options) -> Table:
        self._machines.discard(machine)
        self._hub.commands.handle_loss(machine.id, "the machine's saved state was discarded")
        return {}

    async def _remove(self, machine: LocalMachine, options: Options) -> Table:
        if options.get("force"):
            await self._end(machine, {})
        self._machines.remove(machine)
        return {"state": "removed"}

    async def _snapshot_list(self, machine: LocalMachine, _options: Options) -> Table:
        return {"snapshots": [snapshot.table() for snapshot in Snapshots(machine.directory).all()]}

    async def _snapshot_restore(self, machine: LocalMachine, options: Options) -> Table:
        name = options.get("name")
        found = Snapshots(machine.directory).find(None if name is None else str(name))
        await self._end(machine, {})
        await self._machines.start(machine, found.name)
        return {"snapshot": found.name}

    async def _snapshot_remove(self, machine: LocalMachine, options: Options) -> Table:
        if machine.has_shim:
            return await self._ask(machine, "snapshot_remove", options)
        self._machines.remove_snapshot(machine, str(options.get("name")))
        return {}


def _is_lost(machine: LocalMachine) -> bool:
    """Tell whether a machine's shim has gone or is stuck."""
    return not machine.has_shim or machine.state is VmState.STUCK


def as_guest(machine: LocalMachine) -> Guest:
    """Return a machine as the guest that selectors see, even if it is not on the bus."""
    defined = machine.definition
    labels = {
        "image": defined.image,
        "cpus": str(defined.cpus),
        "memory": str(defined.memory >> 20),
        "host": platform.node(),
    }
    return Guest(machine.id, machine.id, labels={**labels, **defined.labels})


def _plain(table: Mapping[str, object]) -> Table:
    """Return a guest's answer as a JSON object: it arrived as JSON, so it is one."""
    return dict(table)  # type: ignore[arg-type]
