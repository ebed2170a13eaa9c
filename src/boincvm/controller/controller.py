"""The controller of one host: its bus, guests, machines, commands, events and store."""

import asyncio
import os
import platform
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.commands.journal import EventJournal
from boincvm.controller.events import Event, EventLog
from boincvm.controller.files.files import Files
from boincvm.controller.guest_finder import GuestFinder
from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.other_hosts import HostChange, OtherHost
from boincvm.controller.guests.registry import Change
from boincvm.controller.hosts.bus_connection import BusConnection, Listen
from boincvm.controller.hosts.embedded_broker import embedded_broker
from boincvm.controller.hosts.external_broker import external_broker
from boincvm.controller.hosts.hosts import Hosts
from boincvm.controller.machines.autostart import Autostart
from boincvm.controller.machines.controller_node import USUAL_RIGHTS, ControllerNode, RemoteRights
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.machines.machines import Machines
from boincvm.controller.machines.operations import MachineOperations
from boincvm.controller.overview import Overview
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.host_machines import HostMachine
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.vm_state import VmState, refusal
from boincvm.controller.store import Store
from boincvm.errors import BoincvmError, HostError, UsageError
from boincvm.host.atomic_files import write_atomically
from boincvm.host.locks import open_lock, try_lock
from boincvm.host.own_files import make_directory
from boincvm.host.sockets import connect
from boincvm.hypervisor.contract import DISPLAY_SOCKET
from boincvm.json_value import Json

BUS_LIMIT = 10.0
"""Seconds that a lost connection to the broker may take to come back, before requests to machines
are refused."""
_BYE_LIMIT = 5.0
"""Seconds after the end of a shim within which its last messages arrive, unless they were lost."""
_NUMBERS = 1000
_IDENTITY = re.compile(rb"[0-9a-f]{16}")
_CHANGES = {
    Change.FOUND: ("guest_found", "it is there"),
    Change.CHANGED: ("guest_changed", "its description has changed"),
    Change.SILENT: ("guest_silent", "it has been silent for a while"),
    Change.RECOVERED: ("guest_recovered", "it answers again"),
    Change.DROPPED: ("guest_dropped", "it has been silent for too long"),
    Change.LEFT: ("guest_left", "it has left"),
    Change.ASLEEP: ("guest_asleep", "it has left, and will return later"),
}
_HOST_CHANGES = {
    HostChange.FOUND: ("host_found", "the controller of the host {} is there"),
    HostChange.SILENT: ("host_silent", "the controller of the host {} {}"),
    HostChange.LEFT: ("host_left", "the controller of the host {} {}"),
    HostChange.LIES: ("trouble", "the list of machines of the host {} is ignored: {}"),
}


class Controller:
    """Everything that one controller holds; created by `run_controller`.

    The interfaces (HTTP, XML-RPC) use `operations.call`, and for streams `events`, `hub`, `files`,
    `give_input` and `console`.
    """

    def __init__(
        self,
        directory: Path,
        side: BusConnection,
        store: Store,
        rights: RemoteRights = USUAL_RIGHTS,
    ) -> None:
        """`rights`: what the controller that has invited this host may do, if there is one."""
        self.directory = directory
        self.side = side
        self._store = store
        former = store.events()
        self.events = EventLog(_next_number(former), self._store_event)
        self.events.load(former)
        journal = EventJournal(self.events, store)
        owner = _identity(directory / "identity") + "/"
        self.hub = Hub(
            side.bus, self._see, self._handle_report, journal, owner=owner, part=side.part
        )
        self.machines = Machines(directory / "machines", self._bus_for, self._machine_changed)
        self.hosts = Hosts(side, self.hub, self.events, self._machine_ids)
        self.machine_operations = MachineOperations(self.machines, self.hub)
        self.autostart = Autostart(
            self.machines, self.machine_operations, self.events, directory / "boot"
        )
        self.overview = Overview(
            self.machines,
            self.hub,
            self.machine_operations,
            platform.node(),
            self.hosts.invited_as,
        )
        self.guest_finder = GuestFinder(
            self.machines, self.hub, self.machine_operations, self.overview.state
        )
        self.node = ControllerNode(
            side.bus,
            side.part,
            self.machines,
            self.machine_operations,
            self.hosts.check_is_free,
            rights,
        )
        self.hub.reason = self._why_gone
        self.hub.until_connected = partial(side.bus.until_connected, BUS_LIMIT)
        self.hub.other_hosts.is_invited = self.hosts.is_invited
        self.hub.other_hosts.on_change = self._see_host
        self.hub.other_hosts.on_machine = self._see_machine
        self.files = Files(self.hub, directory, partial(self.guest_finder.find, held_too=False))
        self._farewells: dict[str, asyncio.TimerHandle] = {}
        """By machine, when BYE of its shim is not waited for any longer."""

    async def open(self) -> None:
        """Take over what an earlier controller left behind. Raises BoincvmError."""
        for line in self.machines.load():
            self.events.add("trouble", None, line)
        for machine in self.machines.all():  # their shims may connect again
            try:
                machine.directory.bus()
                self._bus_for(machine.id)
            except BoincvmError as error:
                self.events.add("trouble", machine.id, error.message)
        self.hub.commands.load(self._store.commands())
        self.hub.registry.load(self._store.guests())
        for machine in self.machines.all():
            if not machine.directory.is_locked():  # it may have ended while no controller ran
                self._see_end(machine)
        self.side.bus.on_trouble = lambda why: self.events.add("trouble", None, why)
        await self.hub.open()
        self.autostart.begin()

    async def close(self) -> None:
        """Release everything; machines keep running."""
        await self.autostart.close()
        for timer in self._farewells.values():
            timer.cancel()
        await self.files.close()
        await self.hub.close()
        self.machines.close()
        self.events.close()

    async def give_input(self, command_id: str, data: bytes, *, ends: bool) -> None:
        """Give a command more input, waiting until there is room. Raises UsageError."""
        await self.hub.give_input(command_id, data, ends=ends)

    async def console(self, vm: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a machine's screen and keyboard (RFB). Raises UsageError, HostError."""
        machine = self.machines.find(vm)
        if machine is None or not machine.definition.display:
            raise UsageError(
                f"{vm[:64]!r} has no screen here",
                hint="a machine has a screen if it was created with --display; ask the controller"
                " of its own host",
            )
        if machine.state.is_off:
            raise refusal(vm, machine.state, machine.why)
        try:
            peer = await connect(machine.directory.disk / DISPLAY_SOCKET)
            return await asyncio.open_connection(sock=peer)
        except OSError as error:
            raise HostError(
                f"the screen of {vm} cannot be reached: {error.strerror}",
                hint=f"is it running? boincvm ls {vm}",
            ) from error

    # Events.

    def _machine_ids(self) -> list[str]:
        return [machine.id for machine in self.machines.all()]

    def _bus_for(self, machine_id: str) -> BrokerAddress:
        machine, known = self.machines.find(machine_id), ""
        try:
            address = machine.directory.bus() if machine else None
            # The passcode of an external broker is not the machine's own.
            known = address.passcode if address is not None and address.path else ""
        except BoincvmError:
            if machine is not None and machine.has_shim:  # otherwise its next shim gets a new one
                raise
        return self.side.address_for(machine_id, known)

    def commit(self) -> None:
        """Commit everything that has happened so far to the store."""
        self._store.commit()

    def _store_event(self, event: Event) -> None:
        if event.kind != "vm_load" or event.number % _NUMBERS == 0:
            self._store.add_event(event)

    def _see(self, guest: Guest, change: Change) -> None:
        kind, text = _CHANGES[change]
        self.events.add(kind, guest.id, text)
        if change in (Change.LEFT, Change.ASLEEP, Change.DROPPED):
            self._store.remove_guest(guest.id)
            self.overview.forget(guest.id)
        elif change in (Change.FOUND, Change.CHANGED):
            self._store.add_guest(guest)
        machine = self.machines.find(guest.id)
        if machine is not None:
            machine.set_silent(is_silent=change in (Change.SILENT, Change.DROPPED))
            if machine.is_silent is False and change in (Change.SILENT, Change.DROPPED):
                self._see_end(machine)  # its shim could not report it

    def _see_host(self, host: OtherHost, change: HostChange, why: str) -> None:
        kind, text = _HOST_CHANGES[change]
        self.events.add(kind, None, text.format(host.name, why), {"host": host.name})

    def _see_machine(self, machine_id: str, machine: HostMachine | None) -> None:
        """Publish a change of a machine of another host, unless its shim reports itself."""
        if self.machines.find(machine_id) or self.hub.registry.get(machine_id):
            return
        if machine is None:
            self.events.add("vm_removed", machine_id, "it has been removed")
        else:
            self._publish_state(machine_id, *self.overview.state(machine_id))

    def _handle_report(self, guest_id: str, report: Report) -> None:
        before = self.overview.take_report(guest_id, report)
        machine = self.machines.find(guest_id)
        if machine is not None:
            machine.take_report(report)
        elif before is not report.state:
            self._publish_state(guest_id, str(report.state), report.why)
        load: dict[str, Json] = {"cpu": report.cpu, "memory": report.memory}
        data = {**load, "progress": report.progress}
        self.events.add("vm_load", guest_id, "its load", data)

    def _machine_changed(self, machine_id: str) -> None:
        self.node.notify()
        if machine_id in self._farewells:
            self._farewells.pop(machine_id).cancel()
        machine = self.machines.find(machine_id)
        if machine is None:
            self.hub.commands.handle_loss(machine_id, "the machine was removed")
            self.hub.registry.bye(machine_id)  # its shim's message may still be on its way
            self.overview.forget(machine_id)
            self.events.add("vm_removed", machine_id, "it has been removed")
        else:
            self._publish_state(machine_id, str(machine.state), machine.why)
            if machine.ended_unexpectedly:
                self._see_end(machine)
            elif not machine.has_shim and self.hub.registry.get(machine_id) is not None:
                self._wait_for_bye(machine)

    def _wait_for_bye(self, machine: LocalMachine) -> None:
        """Have all that wait for a machine learn of its end even if its shim's BYE is lost."""
        loop = asyncio.get_running_loop()
        self._farewells[machine.id] = loop.call_later(_BYE_LIMIT, self._bye_is_lost, machine)

    def _bye_is_lost(self, machine: LocalMachine) -> None:
        del self._farewells[machine.id]
        self._see_end(machine)

    def _see_end(self, machine: LocalMachine) -> None:
        """Notify all that wait for a machine that its shim has ended."""
        if not machine.has_shim:
            self.hub.guest_is_gone(machine.id, comes_back=machine.state is VmState.SAVED)

    def _why_gone(self, vm: str) -> str:
        machine = self.machines.find(vm)
        if machine is None or not machine.state.is_off:
            return ""
        return f"the machine is {machine.state.label}" + (f": {machine.why}" if machine.why else "")

    def _publish_state(self, vm: str, state: str, why: str) -> None:
        text = f"it is {VmState(state).label}" + (f": {why}" if why else "")
        self.events.add("vm_state", vm, text, {"state": state, "why": why})


@asynccontextmanager
async def run_controller(
    directory: Path,
    *,
    listen: Listen | None = None,
    broker: BrokerAddress | None = None,
    rights: RemoteRights = USUAL_RIGHTS,
) -> AsyncIterator[Controller]:
    """Run the controller whose files are in `directory` for as long as the block lasts.

    `listen`: where guests of other hosts reach its broker; `broker`: an external broker to use
    instead; `rights`: what the controller there may do here, if it has invited this host. Raises
    BoincvmError, OSError.
    """
    make_directory(directory)
    directory.chmod(0o700)
    async with AsyncExitStack() as stack:
        stack.callback(os.close, _lock(directory))
        side = embedded_broker(directory, listen) if broker is None else external_broker(broker)
        opened = await stack.enter_async_context(side)
        store = Store(directory / "store.sqlite")
        stack.callback(store.close)
        controller = Controller(directory, opened, store, rights)
        stack.push_async_callback(controller.close)
        await controller.open()
        if opened.part:
            await stack.enter_async_context(controller.node.serving())
        yield controller


def _next_number(former: list[Event]) -> int:
    """Return a number that no event has had: at least one of every _NUMBERS is on disk."""
    return (former[-1].number // _NUMBERS + 1) * _NUMBERS if former else 1


def _identity(path: Path) -> str:
    """Return the id that is this controller's alone on the bus, across restarts. Raises OSError."""
    with suppress(FileNotFoundError):
        known = path.read_bytes()
        if _IDENTITY.fullmatch(known):
            return known.decode()
    made = secrets.token_hex(8)
    write_atomically(path, made)
    return made


def _lock(directory: Path) -> int:
    descriptor = open_lock(directory / "lock")
    if not try_lock(descriptor):
        os.close(descriptor)
        raise UsageError(
            f"a controller is already running in {directory}", hint="boincvm ls uses it"
        )
    return descriptor
