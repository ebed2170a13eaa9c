"""The controller of an invited host as a node on the bus of the controller that has invited it.

It announces the machines of its part, and does with them what the inviting controller asks for: as
much as its own user allows (RemoteRights).
"""

import asyncio
import json
import platform
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from boincvm.bus.client import StompBus
from boincvm.bus.transport import Message
from boincvm.controller.arguments import Arguments, Kind, Parameter
from boincvm.controller.machines import creation
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.machines.machines import Machines
from boincvm.controller.machines.operations import MachineOperations
from boincvm.controller.protocol.envelope import GUEST, HOST
from boincvm.controller.protocol.guest import BEAT, check_id
from boincvm.controller.protocol.host_machines import (
    REVISION,
    HostMachine,
    HostMachines,
    controller_id,
    encode_page,
)
from boincvm.controller.protocol.messages import read_to_guest
from boincvm.controller.protocol.requests import Ask, Reply
from boincvm.errors import BoincvmError, GuestProtocolError, UsageError, host_error
from boincvm.exit_codes import ExitCode
from boincvm.json_value import Json, fault_of
from boincvm.node.responder import Responder, Verb

_SOON = 0.05
"""Seconds within which several changes are announced together."""
_MOST_LOG = 200 << 10
_NAME = Parameter("name", Kind.TEXT, "")
_OPTIONS: Mapping[str, tuple[Parameter, ...]] = {
    "start": (),
    "pause": (),
    "resume": (),
    "save": (),
    "stop": (Parameter("within", Kind.NUMBER, "", default=20.0),),
    "power_off": (),
    "reset": (),
    "discard": (),
    "remove": (Parameter("force", Kind.FLAG, "", default=False),),
    "snapshot_take": (_NAME, Parameter("description", Kind.TEXT, "", default="")),
    "snapshot_list": (),
    "snapshot_restore": (_NAME,),
    "snapshot_remove": (_NAME._replace(is_required=True),),
}
"""The operations on a machine, with their options."""
_SOURCE = Parameter("source", Kind.TEXT, "", is_required=True)
_LINES = Parameter("lines", Kind.WHOLE, "", default=200)
_CREATES = frozenset(("create", "clone", "remove"))


Table = Mapping[str, Json]
Act = Callable[[str, Table], Awaitable[Reply]]
"""Does something with the machine with that id, or the one that is to get it."""


class RemoteRights(NamedTuple):
    """What the controller that has invited this host may do here, beside using its machines."""

    create: bool = True
    """Create and remove machines."""
    network: bool = False
    """Create machines that reach the network."""


USUAL_RIGHTS = RemoteRights()


class ControllerNode:
    """This controller on the bus of the one that has invited this host, as `part`."""

    def __init__(
        self,
        bus: StompBus,
        part: str,
        machines: Machines,
        operations: MachineOperations,
        check_is_free: Callable[[str], None],
        rights: RemoteRights,
    ) -> None:
        """Serve `machines` by `operations`; `check_is_free` raises UsageError for a taken id."""
        self._bus = bus
        self._part = part
        self._machines = machines
        self._operations = operations
        self._check_is_free = check_is_free
        self._rights = rights
        self._instance = secrets.token_hex(8)
        self._revision = 0
        self._beat_timer: asyncio.TimerHandle | None = None
        self._news_timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[object]] = set()
        self._is_open = False
        verbs = {*_OPTIONS, "create", "clone", "logs"}
        self._announced = frozenset(verbs if rights.create else verbs - _CREATES)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Announce itself and answer within the block; what still runs at its end is given up.

        Raises BusError.
        """
        try:
            async with asyncio.TaskGroup() as group:
                responder = Responder(self._instance, self._verbs(), self._send, group)
                unsubscribe = await self._bus.subscribe(
                    GUEST + controller_id(self._part), partial(self._receive, responder)
                )
                self._open(responder)
                try:
                    yield
                finally:
                    self._close()
                    await unsubscribe()
        except BaseExceptionGroup as errors:
            if len(errors.exceptions) > 1:
                raise
            raise errors.exceptions[0] from None  # the block's own, as if there were no group

    def _open(self, responder: Responder) -> None:
        self._is_open = True
        self._bus.on_connected = self._announce
        self._beat(responder)

    def _close(self) -> None:
        self._is_open = False
        self._bus.on_connected = lambda: None
        for timer in (self._beat_timer, self._news_timer):
            if timer is not None:
                timer.cancel()
        for task in self._running:
            task.cancel()
        self._announce(leaves=True)

    def notify(self) -> None:
        """Announce soon that a machine has changed."""
        self._revision += 1
        if self._is_open and self._news_timer is None:
            loop = asyncio.get_running_loop()
            self._news_timer = loop.call_later(_SOON, self._announce_news)

    def _announce_news(self) -> None:
        self._news_timer = None
        self._announce()

    def _announce(self, *, leaves: bool = False) -> None:
        message = HostMachines(
            self._instance, self._revision, platform.node(), self._announced, leaves
        )
        self._send(message.encode())

    def _beat(self, responder: Responder) -> None:
        self._announce()
        responder.beat()
        self._beat_timer = asyncio.get_running_loop().call_later(BEAT, self._beat, responder)

    def _send(self, body: bytes) -> None:
        self._bus.post(HOST + controller_id(self._part), {}, body)

    def _receive(self, responder: Responder, message: Message) -> None:
        if message.sender == self._part:  # not the inviting controller, but one of its guests
            return
        try:
            received = read_to_guest(message.body)
        except GuestProtocolError:  # a broker that makes no sense, or a newer one
            return
        if isinstance(received, Ask):
            responder.handle(received)

    # Requests.

    def _verbs(self) -> dict[str, Verb]:
        acts: dict[str, Act] = {name: partial(self._operate, name) for name in _OPTIONS}
        acts |= {"create": self._create, "clone": self._clone, "logs": self._logs}
        served = {name: self._served(name, act) for name, act in acts.items()}
        return {**served, "machines": self._list}

    def _served(self, name: str, act: Act) -> Verb:
        async def verb(arguments: Mapping[str, object], data: bytes) -> Reply:
            machine_id = self._checked_id(arguments.get("vm"))
            if name in _CREATES and not self._rights.create:
                raise UsageError(
                    f"the host {self._part} lets no other controller create or remove its machines",
                    hint="do it there; its controller was started with --no-remote-create",
                )
            task = asyncio.current_task()
            if task is None or not self._is_open:
                raise BoincvmError(
                    f"the controller of the host {self._part} is shutting down",
                    exit_code=ExitCode.BUS,
                )
            self._running.add(task)
            try:
                reply = await act(machine_id, _table(data))
            except OSError as error:
                raise host_error("the host's system refused", error) from error
            finally:
                self._running.discard(task)
            if name == "logs":
                return reply
            machine = self._machines.find(machine_id)
            table = {**reply.table, REVISION: self._revision}
            return Reply(table, encode_page([_described(machine)] if machine else [])[0])

        return verb

    def _checked_id(self, value: object) -> str:
        """Return the id of a machine of this host's part. Raises UsageError."""
        machine_id = check_id(value)
        if not machine_id.startswith(f"{self._part}."):
            raise UsageError(f"{machine_id} is not a machine of the host {self._part}")
        return machine_id

    async def _list(self, arguments: Mapping[str, object], _data: bytes) -> Reply:
        after = arguments.get("after")
        if not isinstance(after, str):
            raise UsageError("a list of machines begins after an id, or after none")
        ours = sorted(
            machine.id
            for machine in self._machines.all()
            if machine.id.startswith(f"{self._part}.") and machine.id > after
        )
        page, more = encode_page(_described(self._machines.required(name)) for name in ours)
        return Reply({"more": more}, page)

    async def _operate(self, verb: str, machine_id: str, given: Table) -> Reply:
        self._machines.required(machine_id)
        Arguments(_OPTIONS[verb], given)  # raises what is wrong with them
        options = {name: value for name, value in given.items() if value is not None}
        return Reply(await self._operations.run(machine_id, verb, options))

    async def _create(self, machine_id: str, given: Table) -> Reply:
        arguments = Arguments(creation.PARAMETERS, {**given, "name": machine_id})
        if arguments.flag("network") and not self._rights.network:
            raise UsageError(
                f"the host {self._part} lets no other controller create machines with a network",
                hint="create it there, or start its controller with --remote-network",
            )
        self._check_is_free(machine_id)
        made = creation.create(self._machines, arguments)
        return Reply({"state": str(made.state)})

    async def _clone(self, machine_id: str, given: Table) -> Reply:
        source = self._checked_id(Arguments((_SOURCE,), given).text("source"))
        self._check_is_free(machine_id)
        made = await self._machines.clone(self._machines.required(source), machine_id)
        return Reply({"state": str(made.state)})

    async def _logs(self, machine_id: str, given: Table) -> Reply:
        count = Arguments((_LINES,), given).whole("lines")
        lines = "\n".join(self._machines.log_lines(machine_id, count)).encode()
        return Reply({}, lines[-_MOST_LOG:])


def _described(machine: LocalMachine) -> HostMachine:
    defined = machine.definition
    return HostMachine(
        machine.id,
        machine.state,
        machine.why,
        defined.image,
        defined.memory,
        defined.cpus,
        defined.disk,
        defined.labels,
    )


def _table(data: bytes) -> Table:
    """Return the options of a request. Raises UsageError."""
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the options of a request are not JSON: {fault_of(error)}") from None
    if not isinstance(found, dict):
        raise UsageError("the options of a request are not a JSON object")
    return found
