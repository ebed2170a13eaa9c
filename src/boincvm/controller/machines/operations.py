"""Run lifecycle operations on machines: on each that a selector matches, independently."""

import asyncio
import json
import platform
from collections.abc import Awaitable, Callable, Iterable, Mapping

from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.other_hosts import OtherHost
from boincvm.controller.guests.registry import Presence
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.machines.machines import Machines
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.host_machines import HostMachine
from boincvm.controller.protocol.selector import Selector, parse_selector
from boincvm.controller.protocol.vm_state import VmState, refusal
from boincvm.errors import (
    BoincvmError,
    GuestDiedError,
    GuestProtocolError,
    HostError,
    UsageError,
    host_error,
)
from boincvm.json_value import Json
from boincvm.shim.snapshots import Snapshots
from boincvm.shim.verbs import ENDS

ASK_LIMIT = 600.0
"""Seconds that a shim may take for any request."""
PATIENCE = 60.0
"""Seconds after which a shim that was told to power off is killed, and its machine with it."""

Options = Mapping[str, Json]
Table = dict[str, Json]
LONGEST_START = 4200.0
"""Seconds that another host's controller may take to start a machine; a first boot takes longest.
"""
REMOTE = frozenset(
    ("pause", "resume", "save", "stop", "power_off", "snapshot_take", "snapshot_remove")
)
"""Operations that the controller of another host's machine need not do itself."""
_DEEPEST = 16
"""Levels of a guest's result."""
_STARTS = frozenset(("start", "reset", "snapshot_restore"))


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
        """Return the ids of all machines and guests that it matches.

        They are the machines of this host, guests on the bus, and machines of invited hosts.
        """
        registry = self._hub.registry
        found = {
            machine.id for machine in self._machines.all() if selector.matches(as_guest(machine))
        }
        found |= {
            guest.id for guest in registry.find(selector) if self._machines.find(guest.id) is None
        }
        found |= {
            machine.id
            for host, machine in self._hub.other_hosts.all()
            if self._machines.find(machine.id) is None
            and registry.get(machine.id) is None
            and selector.matches(as_guest_of(host, machine))
        }
        return sorted(found)

    async def each(self, vms: str, verb: str, options: Options) -> Table:
        """Return the outcomes by id. Raises UsageError if `vms` is not `all` and matches nothing.

        A pattern means those that this controller can ask to do it, if there are any. It removes
        machines of another host only if it begins with the host's name.
        """
        selector = parse_selector(vms)
        targets = self.targets(selector)
        if not targets and vms != "all":
            raise UsageError(f"{vms[:80]!r} matches no machine", hint="boincvm ls shows them")
        if selector.only is None and targets:
            targets = [vm for vm in targets if self._can_handle(vm, verb)] or targets
            if verb == "remove":
                targets = self._without_other_hosts(vms, targets)
        async with asyncio.TaskGroup() as group:
            tasks = {vm: group.create_task(self._outcome(vm, verb, options)) for vm in targets}
        return {vm: task.result() for vm, task in tasks.items()}

    def _without_other_hosts(self, vms: str, targets: list[str]) -> list[str]:
        """Return what a pattern removes: `all` shall not empty other hosts. Raises UsageError."""
        hosts = self._hub.other_hosts
        named = []
        for vm in targets:
            host = None if self._machines.find(vm) else hosts.host_of(vm)
            if host is None or vms.startswith(f"{host.name}."):
                named.append(vm)
        if not named:
            raise UsageError(
                f"{vms[:80]!r} matches only machines of other hosts, which are removed by name or"
                " by a pattern that begins with the host's name",
                hint="as in: boincvm rm 'lab.*'",
            )
        return named

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

    def _can_handle(self, vm: str, verb: str) -> bool:
        return self._machines.find(vm) is not None or verb in self.elsewhere(vm)

    def elsewhere(self, vm: str) -> frozenset[str]:
        """Return the operations that a machine of another host can be asked to do, if any."""
        guest, host = self._hub.registry.get(vm), self._hub.other_hosts.find(vm)
        if guest is not None and "lifecycle" not in guest.capabilities:
            return frozenset()
        can = REMOTE if guest is not None else frozenset()
        return can | host[0].verbs if host is not None and host[0].why_away is None else can

    async def _ask_elsewhere(self, vm: str, verb: str, options: Options) -> Table:
        hosts = self._hub.other_hosts
        guest, found = self._hub.registry.get(vm), hosts.find(vm)
        if guest is None and found is None:
            raise _unknown(vm)
        if guest is not None and "lifecycle" not in guest.capabilities:
            raise UsageError(
                f"{vm} is not a machine of the controller, and cannot be asked to"
                f" {verb.replace('_', ' ')}",
                hint=f"it is a host itself, to be managed on {guest.host or 'where it runs'}",
            )
        is_heard = self._hub.registry.presence(vm) is Presence.PRESENT
        await self._hub.until_connected()
        if guest is not None and verb in REMOTE and (is_heard or found is None):
            reply = await self._hub.requester.ask(guest, verb, options, within=ASK_LIMIT)
            return _checked(vm, reply.table)
        if found is None:
            raise UsageError(
                f"{vm} is not a machine of this host, and cannot be asked to"
                f" {verb.replace('_', ' ')}",
                hint="ask the controller of its own host",
            )
        within = LONGEST_START if verb in _STARTS else ASK_LIMIT
        return _checked(vm, await hosts.ask(found[0], verb, vm, options, within=within))

    async def create_elsewhere(self, host: str, verb: str, vm: str, options: Options) -> None:
        """Have the controller of an invited host create a machine, or clone one of its own.

        `verb`: create or clone. Raises BoincvmError.
        """
        found = self._hub.other_hosts.get(host)
        if found is None:
            raise UsageError(
                f"{vm} would be a machine of the invited host {host}, whose controller is not on"
                " the bus",
                hint="start it there: boincvm controller --broker …; an old version of it cannot"
                " be asked: create the machine there",
            )
        await self._hub.other_hosts.ask(found, verb, vm, options, within=LONGEST_START)

    async def _ask(self, machine: LocalMachine, verb: str, options: Options) -> Table:
        """Send a request to a machine's shim, which may end without an answer."""
        await machine.until(lambda: not machine.is_ending)
        if verb != "power_off":
            await self._check_heard(machine)
        if not machine.has_shim:
            raise refusal(machine.id, machine.state, machine.why)
        ended = asyncio.ensure_future(machine.until(lambda: _is_lost(machine)))
        answer = asyncio.ensure_future(self._ask_when_there(machine, verb, options))
        try:
            await asyncio.wait((ended, answer), return_when=asyncio.FIRST_COMPLETED)
            if answer.done() and isinstance(answer.exception(), GuestDiedError):
                # Its shim has said BYE and ends, which tells more than its missing answer.
                await asyncio.wait((ended,), timeout=PATIENCE)
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

    async def _check_heard(self, machine: LocalMachine) -> None:
        """Raise UsageError if a machine is stuck, BusError if it only seems so without a bus."""
        if machine.state is VmState.STUCK:
            await self._hub.until_connected()
        if machine.state is VmState.STUCK:  # it may have been heard meanwhile
            raise refusal(machine.id, machine.state, machine.why)

    @staticmethod
    def _has_ended(machine: LocalMachine, verb: str) -> HostError:
        return HostError(
            f"the machine {machine.id} did not answer {verb.replace('_', ' ')}:"
            f" it is {machine.state.label}{machine.why and ': '}{machine.why}",
            hint=machine.state.meaning.remedy.format(vm=machine.id),
        )

    async def _ask_when_there(self, machine: LocalMachine, verb: str, options: Options) -> Table:
        if verb != "power_off":  # which is done even if nobody can be asked
            await self._hub.until_connected()
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
        return _checked(machine.id, reply.table)

    # Operations on machines of this host.

    async def _start(self, machine: LocalMachine, _options: Options) -> Table:
        """Make a machine run, whatever state it is in."""
        while True:
            await machine.until(lambda: not machine.is_ending)
            state = machine.state
            if state.is_off:
                await self._hub.until_connected()
                await self._machines.start(machine)
                return {}
            if state is VmState.RUNNING:
                return {}
            await self._check_heard(machine)
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
        except HostError:
            if machine.state is not VmState.STUCK:
                raise
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
        await self._hub.until_connected()  # or it would end, and not start again
        await self._end(machine, options)
        if machine.state is VmState.SAVED:
            self._machines.discard(machine)
        await self._machines.start(machine)
        return {}

    async def _discard(self, machine: LocalMachine, _options: Options) -> Table:
        await machine.until(lambda: not machine.is_ending)
        self._machines.discard(machine)
        self._hub.commands.handle_loss(machine.id, "the machine's saved state was discarded")
        return {}

    async def _remove(self, machine: LocalMachine, options: Options) -> Table:
        if options.get("force"):
            await self._end(machine, {})
        await machine.until(lambda: not machine.is_ending)
        if machine.has_shim:
            raise UsageError(
                f"the machine {machine.id} is running",
                hint="boincvm rm --force switches it off and removes it",
            )
        self._machines.remove(machine)
        await self._machines.release_image(machine)
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


def as_guest_of(host: OtherHost, machine: HostMachine) -> Guest:
    """Return a machine of another host as the guest that selectors see."""
    labels = {
        "image": machine.image,
        "cpus": str(machine.cpus),
        "memory": str(machine.memory >> 20),
        "host": host.host,
    }
    return Guest(machine.id, machine.id, host.host, {**labels, **machine.labels})


def _unknown(vm: str) -> UsageError:
    return UsageError(f"there is no machine {vm[:64]!r}", hint="boincvm ls shows them")


def _checked(vm: str, table: Mapping[str, object]) -> Table:
    """Return a guest's answer as a JSON object that can be passed on. Raises GuestProtocolError.

    Python's reader takes NaN, half surrogate pairs and deep nesting, of which each would fail where
    all outcomes are written.
    """
    layer: list[object] = [dict(table)]
    for _ in range(_DEEPEST):
        layer = [item for value in layer for item in _items(value)]
    try:
        if layer:
            raise ValueError("it is nested too deeply")
        json.dumps(table, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise GuestProtocolError(
            f"the result of {vm} is no valid JSON: {ascii(str(error))[1:-1][:200]}",
            hint="its host or its guest agent is broken, or hostile",
        ) from None
    return dict(table)  # type: ignore[arg-type]


def _items(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
