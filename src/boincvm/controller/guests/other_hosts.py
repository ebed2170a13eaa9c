"""The controllers of invited hosts, as the inviting one sees them: their machines, and requests.

A controller that has been invited sends MACHINES (protocol/host_machines.py). Its list of machines
is then fetched, at most once every PAUSE seconds, and kept until the host is no longer invited. A
machine that is off is in this list only; one that runs is also a guest on the bus.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto

from boincvm.controller.guests.registry import DROPPED_AFTER, MOST_OF_ACCOUNT, SILENT_AFTER
from boincvm.controller.guests.requests import Requester
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.host_machines import (
    REVISION,
    HostMachine,
    HostMachines,
    controller_id,
    read_page,
)
from boincvm.controller.protocol.requests import Reply
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import BoincvmError, GuestProtocolError, HostError
from boincvm.json_value import Json, is_whole

PAUSE = 0.5
"""Seconds between two looks at the list of one host, however often it changes."""
MOST_BYTES = 4 << 20
"""Bytes of the list of one host."""
MOST_AT_ONCE = 64
"""Requests to the controller of one host at the same time; others wait for them."""
_LIST_LIMIT = 60.0
_BEGINS = (VmState.STARTING, VmState.RESTORING)


class HostChange(Enum):
    """A change in the presence of an invited host's controller."""

    FOUND = auto()
    SILENT = auto()
    LEFT = auto()
    LIES = auto()
    """Its list of machines is invalid."""


class OtherHost:
    """An invited host whose controller has announced itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        """The name by which it was invited."""
        self.host = name
        """Its own name."""
        self.verbs: frozenset[str] = frozenset()
        self.machines: dict[str, HostMachine] = {}
        self.why_away: str | None = "has not been heard yet"
        """Why its controller cannot be asked, as the rest of a sentence; None if it can."""
        self.controller = Guest(controller_id(name), name)
        """The address of its controller, and its life."""
        self.wanted = 0
        """The newest revision of the list that was announced."""
        self.fetched = -1
        """The revision that was fetched."""
        self.turns = asyncio.Semaphore(MOST_AT_ONCE)
        self.timer: asyncio.TimerHandle | None = None
        self.work: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Stop waiting for it; calling this again is harmless."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.work is not None:
            self.work.cancel()
            self.work = None


class OtherHosts:
    """The invited hosts whose controllers have announced themselves."""

    def __init__(self, requester: Requester) -> None:
        self._requester = requester
        self._known: dict[str, OtherHost] = {}
        self._ended: set[asyncio.Task[None]] = set()
        self.is_invited: Callable[[str], bool] = lambda _name: False
        """Tells whether a host with that name is invited; the others are ignored."""
        self.on_change: Callable[[OtherHost, HostChange, str], None] = lambda _host, _what, _why: (
            None
        )
        """Called when a host's controller comes or goes, with a reason."""
        self.on_machine: Callable[[str, HostMachine | None], None] = lambda _id, _machine: None
        """Called with a machine whose description has changed; None if it is no longer there."""

    def get(self, name: str) -> OtherHost | None:
        """Return the host that was invited by that name, if its controller was ever heard."""
        return self._known.get(name)

    def host_of(self, machine_id: str) -> OtherHost | None:
        """Return the host to which the id of a machine belongs, if its controller was heard."""
        return next(
            (host for host in self._known.values() if machine_id.startswith(f"{host.name}.")), None
        )

    def find(self, machine_id: str) -> tuple[OtherHost, HostMachine] | None:
        """Return a machine of another host, and that host, or None if there is none."""
        host = self.host_of(machine_id)
        machine = host.machines.get(machine_id) if host is not None else None
        return None if host is None or machine is None else (host, machine)

    def all(self) -> Iterator[tuple[OtherHost, HostMachine]]:
        """Yield all known machines of other hosts, with their hosts."""
        for host in self._known.values():
            for machine in host.machines.values():
                yield host, machine

    def state(self, machine_id: str) -> tuple[VmState, str]:
        """Return the state of a machine that is not on the bus, and the reason for it."""
        found = self.find(machine_id)
        if found is None:
            return VmState.UNKNOWN, ""
        host, machine = found
        if host.why_away is not None:
            return VmState.UNKNOWN, f"the controller of the host {host.name} {host.why_away}"
        if machine.state.is_off or machine.state in _BEGINS:
            return machine.state, machine.why
        return VmState.UNKNOWN, f"it is {machine.state.label}, but not on this bus"

    # What their controllers send.

    def handle(self, guest_id: str, sender: str, message: HostMachines) -> None:
        """Handle that a controller has announced itself, or its list. Raises GuestProtocolError.

        `sender` is the broker's word for who has sent it.
        """
        if guest_id != controller_id(sender) or not self.is_invited(sender):
            raise GuestProtocolError("MACHINES did not come from an invited host")
        if message.leaves:
            self._leave(sender, message.instance)
            return
        host = self._known.setdefault(sender, OtherHost(sender))
        if host.controller.instance != message.instance:
            host.controller = host.controller._replace(instance=message.instance)
            host.fetched = -1
        if host.fetched < 0 or host.why_away is not None:
            self._requester.handle_hello(host.controller)
        else:
            self._requester.handle_beat(guest_id)
        host.host, host.verbs = message.host or sender, message.verbs
        host.wanted = message.revision
        if host.timer is not None:
            host.timer.cancel()
        host.timer = asyncio.get_running_loop().call_later(SILENT_AFTER, self._fall_silent, host)
        if host.why_away is not None:
            host.why_away = None
            self.on_change(host, HostChange.FOUND, "")
        self._fetch_soon(host)

    def _leave(self, name: str, instance: str) -> None:
        host = self._known.get(name)
        if host is not None and host.controller.instance == instance:
            host.stop()
            host.why_away = "has ended"
            self._requester.handle_loss(host.controller.id, "has ended")
            self.on_change(host, HostChange.LEFT, host.why_away)

    def _fall_silent(self, host: OtherHost) -> None:
        host.why_away = "has been silent for a while"
        host.timer = asyncio.get_running_loop().call_later(
            DROPPED_AFTER - SILENT_AFTER, self._give_up, host
        )
        self.on_change(host, HostChange.SILENT, host.why_away)

    def _give_up(self, host: OtherHost) -> None:
        """Wait no longer for the answers of a host that has been silent for too long."""
        self._requester.handle_loss(host.controller.id, "has been silent for too long")

    def forget(self, name: str) -> None:
        """Forget a host that is no longer invited, and its machines."""
        host = self._known.pop(name, None)
        if host is not None:
            host.stop()
            self._requester.handle_loss(host.controller.id, "is no longer invited")
            for machine_id in host.machines:
                self.on_machine(machine_id, None)

    async def close(self) -> None:
        """Stop waiting for hosts; calling this again is harmless."""
        for host in self._known.values():
            host.stop()
        await asyncio.gather(*self._ended, return_exceptions=True)

    # Their lists.

    def _fetch_soon(self, host: OtherHost) -> None:
        if host.fetched != host.wanted and host.work is None:
            host.work = asyncio.create_task(self._fetch_until_newest(host))
            self._ended.add(host.work)
            host.work.add_done_callback(self._has_fetched)

    def _has_fetched(self, task: asyncio.Task[None]) -> None:
        self._ended.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error  # a bug: the loop reports it

    async def _fetch_until_newest(self, host: OtherHost) -> None:
        try:
            await self._fetch_all(host)
        finally:
            # At once: what is announced before the loop reports the end must not be missed.
            if host.work is asyncio.current_task():
                host.work = None

    async def _fetch_all(self, host: OtherHost) -> None:
        while host.fetched != host.wanted and host.why_away is None:
            wanted, controller = host.wanted, host.controller
            try:
                fetched = await self._fetch(host, controller)
            except BoincvmError:
                if controller.instance == host.controller.instance:
                    return  # asked again at its next message
            else:
                host.fetched = wanted
                self._update_machines(host, fetched.machines if fetched.fault is None else {})
                if fetched.fault is not None:
                    self.on_change(host, HostChange.LIES, fetched.fault)
            await asyncio.sleep(PAUSE)

    async def _fetch(self, host: OtherHost, controller: Guest) -> "_HostList":
        """Return the list, whole or as far as it is valid. Raises BoincvmError if it cannot be had.

        An error that the host reports, of whatever kind, says nothing about its machines.
        """
        fetched = _HostList(host.name)
        while fetched.more and fetched.fault is None:
            options = {"after": fetched.last}
            reply = await self._requester.ask(controller, "machines", options, within=_LIST_LIMIT)
            fetched.add(reply)
        return fetched

    def _update_machines(self, host: OtherHost, machines: dict[str, HostMachine]) -> None:
        before, host.machines = host.machines, machines
        for machine_id in before.keys() - machines.keys():
            self.on_machine(machine_id, None)
        for machine_id, machine in machines.items():
            if before.get(machine_id) != machine:
                self.on_machine(machine_id, machine)

    # Requests to their controllers.

    async def ask(
        self,
        host: OtherHost,
        verb: str,
        machine_id: str,
        options: Mapping[str, Json],
        *,
        within: float,
    ) -> Mapping[str, object]:
        """Have the controller of `host` do something with one of its machines.

        Return its result. Raises BoincvmError: the other host's, or why it could not be asked.
        """
        reply = await self._ask(host, verb, machine_id, options, within=within)
        result = dict(reply.table)
        self._take_one(host, machine_id, reply.data, result.pop(REVISION, None))
        return result

    async def log_lines(self, host: OtherHost, machine_id: str, count: int) -> list[str]:
        """Return the last lines of a machine's log there. Raises BoincvmError."""
        options: dict[str, Json] = {"lines": count}
        reply = await self._ask(host, "logs", machine_id, options, within=_LIST_LIMIT)
        lines = reply.data.decode("utf-8", "replace").split("\n") if reply.data else []
        return [_printable(line) for line in lines[max(len(lines) - count, 0) :]]

    async def _ask(
        self,
        host: OtherHost,
        verb: str,
        machine_id: str,
        options: Mapping[str, Json],
        *,
        within: float,
    ) -> Reply:
        if host.why_away is not None:
            raise HostError(
                f"the controller of the host {host.name} {host.why_away}",
                hint=f"start it there: boincvm controller --broker …; or manage {machine_id} there",
            )
        # Apart from the other fields, because they may be long.
        data = json.dumps(dict(options), ensure_ascii=False).encode()
        async with host.turns:
            return await self._requester.ask(
                host.controller, verb, {"vm": machine_id}, data, within=within
            )

    def _take_one(self, host: OtherHost, machine_id: str, data: bytes, revision: object) -> None:
        """Take the description of a machine after a request. Raises GuestProtocolError.

        `revision` is that of the host's list when it was described.
        """
        page = read_page(data, host.name)
        if any(machine.id != machine_id for machine in page):
            raise GuestProtocolError(f"the host {host.name} answers for another machine")
        if self._known.get(host.name) is not host:
            return  # it is no longer invited
        if is_whole(revision) and revision < host.fetched:
            return  # the answer was late: the list is newer
        if not page:
            if host.machines.pop(machine_id, None) is not None:
                self.on_machine(machine_id, None)
        elif machine_id not in host.machines and len(host.machines) >= MOST_OF_ACCOUNT:
            return
        elif host.machines.get(machine_id) != page[-1]:
            host.machines[machine_id] = page[-1]
            self.on_machine(machine_id, page[-1])


class _HostList:
    """The list of a host's machines, page by page."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._size = 0
        self.machines: dict[str, HostMachine] = {}
        self.last = ""
        """The last id."""
        self.more = True
        self.fault: str | None = None
        """Why it is invalid."""

    def add(self, reply: Reply) -> None:
        """Check the next page and add it."""
        try:
            self._add(reply)
        except GuestProtocolError as error:
            self.fault = error.message

    def _add(self, reply: Reply) -> None:
        self._size += len(reply.data)
        self.more = reply.table.get("more") is True
        page = read_page(reply.data, self._host)
        for machine in page:
            if machine.id <= self.last:
                raise GuestProtocolError("a list of machines is not in order")
            self.last = machine.id
            self.machines[machine.id] = machine
        is_too_long = len(self.machines) > MOST_OF_ACCOUNT or self._size > MOST_BYTES
        if is_too_long or (self.more and not page):
            raise GuestProtocolError(
                f"a list has more than {MOST_OF_ACCOUNT} machines, or is too long"
            )


def _printable(line: str) -> str:
    return "".join(c for c in line if c.isprintable() or c == "\t")
