"""Hosts that are invited to a controller, and what they may send to its bus."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from boincvm.bus.broker_address import BrokerAddress, open_bus
from boincvm.bus.client import Address, StompBus
from boincvm.bus.transport import Message
from boincvm.controller.controller import Controller
from boincvm.controller.hosts.bus_connection import Listen
from boincvm.controller.operations import call
from boincvm.controller.protocol.envelope import GUEST, HOST
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.host_machines import HostMachines, controller_id
from boincvm.controller.protocol.messages import read_to_guest
from boincvm.controller.protocol.requests import Ask, Reply
from boincvm.errors import BoincvmError
from boincvm.node.node import Node
from boincvm.node.responder import Responder
from support.bus.embedded import Peer
from support.controller.faces import FakeGuest, bounded

LOOPBACK = Listen("127.0.0.1", 0)
_VERBS = ("start", "stop", "remove", "create", "snapshot_take", "logs")


async def invite(controller: Controller, name: str = "b", authority: str = "") -> BrokerAddress:
    """Invite a host; return how it reaches the bus."""
    reported = await call(controller, "invite", {"name": name})
    return reached(controller, name, str(reported["passcode"]), authority)


def reached(controller: Controller, name: str, passcode: str, authority: str = "") -> BrokerAddress:
    """Return how an invited host reaches the bus."""
    assert controller.side.address is not None
    host, port = controller.side.address
    return BrokerAddress(name, passcode, host=host, port=port, authority=authority)


async def logged_in(location: BrokerAddress) -> Peer:
    peer = await Peer.open(Address(host=location.host, port=location.port))
    login = {"login": location.login, "passcode": location.passcode}
    peer.send("CONNECT", **{"accept-version": "1.2", "host": "x", **login})
    assert (await peer.receive()).command == "CONNECTED"
    return peer


class FakeHost:
    """The controller of an invited host, which sends `pages` as its list of machines."""

    def __init__(self, bus: StompBus, name: str, pages: Iterable[bytes]) -> None:
        self.pages: list[bytes | BoincvmError] = list(pages)
        """An error is reported in place of a page."""
        self.has_failed = asyncio.Event()
        """Set when it has reported one."""
        self.asked: list[tuple[str, Mapping[str, object]]] = []
        self.answers: dict[str, bytes] = {}
        """By verb, the description of a machine with which a request is answered."""
        self.results: dict[str, Mapping[str, object]] = {}
        """By verb, the result, if it is not that the machine runs."""
        self.may_answer = asyncio.Event()
        """Set unless requests, but that for its list, are to wait."""
        self.may_answer.set()
        self._bus = bus
        self._name = name
        self._revision = 0

    def announce(self, instance: str = "1", topic: str | None = None, **more: object) -> None:
        """Send MACHINES with a new revision, to `topic` in place of the right one."""
        self._revision += 1
        message = HostMachines(instance, self._revision, "far", frozenset(_VERBS), **more)  # type: ignore[arg-type]
        there = topic or HOST + controller_id(self._name)
        self._bus.post(there, {}, message.encode())

    async def _list(self, arguments: Mapping[str, object], _data: bytes) -> Reply:
        self.asked.append(("machines", arguments))
        at = len([verb for verb, _ in self.asked if verb == "machines"]) - 1
        at = min(at, len(self.pages) - 1) if len(self.pages) > 1 else 0
        page = self.pages[at]
        if isinstance(page, BoincvmError):
            self.has_failed.set()
            raise page
        return Reply({"more": at + 1 < len(self.pages)}, page)

    def _answer(self, verb: str) -> object:
        async def answer(arguments: Mapping[str, object], _data: bytes) -> Reply:
            self.asked.append((verb, arguments))
            await self.may_answer.wait()
            result = self.results.get(verb, {"state": "running"})
            return Reply(result, self.answers.get(verb, b""))

        return answer

    @classmethod
    @asynccontextmanager
    async def open(cls, location: BrokerAddress, *pages: bytes) -> AsyncIterator[Self]:
        async with asyncio.TaskGroup() as group:
            bus = await open_bus(location)
            try:
                made = cls(bus, location.login, pages)
                verbs = {verb: made._answer(verb) for verb in _VERBS}
                responder = Responder(
                    "1",
                    {**verbs, "machines": made._list},  # type: ignore[dict-item]
                    lambda body: bus.post(HOST + controller_id(location.login), {}, body),
                    group,
                )

                def receive(message: Message) -> None:
                    received = read_to_guest(message.body)
                    if isinstance(received, Ask):
                        responder.handle(received)

                await bus.subscribe(GUEST + controller_id(location.login), receive)
                yield made
            finally:
                made.may_answer.set()
                await bus.close()


@asynccontextmanager
async def guest(location: BrokerAddress, name: str, directory: Path) -> AsyncIterator[FakeGuest]:
    """Make a guest of an invited host; it needs no controller."""
    me = Guest(name, name, "far", {}, frozenset(("run", "files", "lifecycle")), f"{name}-1")
    made = FakeGuest(me, directory / name)
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        stack.push_async_callback(made.files.close)
        bus = await open_bus(location)
        stack.push_async_callback(bus.close)
        there = Node(bus, me, made.start, group, 0.2, made.verbs(), made.report)
        await there.open()
        stack.push_async_callback(there.close)
        stack.callback(made.end_programs)
        yield made


async def until_known(controller: Controller, *names: str) -> None:
    for name in names:
        await bounded(controller.hub.registry.wait_for(name))


async def ids(controller: Controller) -> list[str]:
    reported = await call(controller, "list", {})
    return [str(one["id"]) for one in reported["vms"]]  # type: ignore[union-attr,index,call-overload]


async def output(controller: Controller, command_id: str) -> dict[str, str]:
    """Return the output by machine, once the command has ended."""
    await bounded(controller.hub.commands.find(command_id).finished())
    reported = await call(controller, "command", {"id": command_id, "output": True})
    answers = reported["answers"]
    assert isinstance(answers, dict)
    return {
        name: one["output"]["stdout"] if one["state"] == "ended" else one["state"]  # type: ignore[index,call-overload]
        for name, one in answers.items()
    }
