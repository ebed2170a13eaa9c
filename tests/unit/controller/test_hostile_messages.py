"""Whatever is sent on the bus raises GuestProtocolError at most: any other exception in a receiver
ends the bus, and with it the controller, or a shim's only connection."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from boincvm.controller.guests.hub import Hub
from boincvm.controller.protocol.envelope import pack
from boincvm.controller.protocol.guest import Guest, HelloWanted, Ping
from boincvm.controller.protocol.messages import read_to_guest
from boincvm.controller.protocol.program import Request
from boincvm.controller.protocol.requests import Ask, Reply
from boincvm.errors import BoincvmError, GuestProtocolError
from boincvm.node.commands import NodeCommands
from boincvm.node.responder import Responder
from support.anything import ANYTHING, HUGE
from support.controller.lossy import FakeProgram
from support.controller.quiet_bus import QuietBus

TO_US = [
    *("HELLO", "STILL_ALIVE", "BYE", "STATE", "PONG", "ANSWER", "ASK_TAKEN", "CMD_STARTED"),
    *("CMD_OUTPUT", "CMD_PROGRESS", "CMD_RESULT", "CMD_INPUT_TAKEN", "CMD_WHAT", "WHAT"),
]
TO_A_GUEST = ["CMD_RUN", "CMD_TAKEN", "CMD_SIGNAL", "CMD_FORGET", "CMD_INPUT", "CMD_WHAT", "ASK"]
KEYS = [
    *("name", "host", "labels", "capabilities", "instance", "comes-back", "state", "cpu", "sign"),
    *("memory", "progress", "ask-id", "result", "error", "cmd-id", "stream", "offset", "first"),
    *(
        "fraction",
        "code",
        "signal",
        "resources",
        "stdout",
        "stderr",
        "received",
        "confirmed",
        "ends",
        "again",
    ),
    *("argv", "env", "directory", "timeout", "keep-input", "verb", "arguments", "timed-out"),
]
VALUES = ANYTHING | some.sampled_from(
    ["mine", "life", "stdout", "running", 0, 1, 7, HUGE, "\ud800", "x" * 60_000, ["a"], {"a": "b"}]
)
LIKELY = {"cmd-id": "mine", "instance": "life", "argv": ["wait"], "stdout": 0, "stderr": 0}
TABLES = some.dictionaries(some.sampled_from(KEYS), VALUES, max_size=8)
DATA = some.binary(max_size=20)


def body(name: str, table: Mapping[str, object], data: bytes) -> bytes:
    """Encode a message as a peer may do that does not check it."""
    return b"%b %b\n%b" % (name.encode(), json.dumps(table).encode(), data)


class World:
    """A hub with a guest `g` that has received a command and a request."""

    def __init__(self) -> None:
        self.bus = QuietBus()
        self.hub = Hub(self.bus)
        self.asked: asyncio.Task[Reply] | None = None

    async def __aenter__(self) -> "World":
        await self.hub.open()
        guest = Guest("g", "g", instance="life")
        self.hub.registry.hello(guest)
        self.hub.run("g", Request(("cat",)), command_id="mine", keep_input=True)
        self.asked = asyncio.ensure_future(self.hub.requester.ask(guest, "pause", within=20))
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hub.close()
        assert self.asked is not None
        with suppress(BoincvmError):
            await self.asked


@settings(deadline=None)
@given(some.lists(some.tuples(some.sampled_from(TO_US), TABLES, DATA), min_size=1, max_size=6))
def test_nothing_that_guests_say_ends_the_controller(
    words: list[tuple[str, dict[str, object], bytes]],
) -> None:
    async def scenario() -> None:
        async with World() as world:
            number = world.hub.requester._prefix
            for name, table, data in words:
                likely = {**LIKELY, "ask-id": f"{number}-1", **table}
                world.bus.deliver("g", body(name, likely, data))

    asyncio.run(scenario())


@settings(deadline=None)
@given(some.binary(max_size=200) | some.text(max_size=200).map(str.encode))
def test_no_bytes_do(data: bytes) -> None:
    async def scenario() -> None:
        async with World() as world:
            world.bus.deliver("g", data)
            world.bus.deliver("g", b"CMD_OUTPUT " + data)

    asyncio.run(scenario())


def take(guest: NodeCommands, responder: Responder, word: bytes) -> None:
    """Handle a message as a Node does."""
    with suppress(GuestProtocolError):
        message = read_to_guest(word)
        if isinstance(message, Ask):
            responder.handle(message)
        elif not isinstance(message, HelloWanted | Ping):
            guest.handle(message)


@settings(deadline=None)
@given(
    some.lists(some.tuples(some.sampled_from(TO_A_GUEST), TABLES, DATA), min_size=1, max_size=6),
    some.booleans(),
)
def test_nothing_ends_a_shim_s_bus(
    words: list[tuple[str, dict[str, object], bytes]], is_held: bool
) -> None:
    async def scenario() -> None:
        sent: list[bytes] = []
        programs: list[FakeProgram] = []

        def start(request: Request, listener: object) -> FakeProgram:
            for word in (*request.argv, *request.environment, request.directory):
                word.encode("utf-8", "surrogateescape")
            programs.append(FakeProgram(request._replace(argv=("wait",)), listener))  # type: ignore[arg-type]
            return programs[-1]

        async def verb(_table: Mapping[str, object], _data: bytes) -> Reply:
            return Reply({})

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            guest = NodeCommands("life", start, sent.append, group)
            responder = Responder("life", {"verb": verb}, sent.append, group)
            if is_held:
                guest.hold()
            for name, table, data in words:
                take(guest, responder, body(name, {**LIKELY, "ask-id": "a", **table}, data))
            guest.release()
            guest.beat()
            responder.beat()
            for program in programs:
                program.signal(9)

    asyncio.run(scenario())


async def test_what_is_held_and_makes_no_sense_ends_no_machine() -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        begun: list[Request] = []

        def start(request: Request, listener: object) -> FakeProgram:
            begun.append(request)
            return FakeProgram(request, listener)  # type: ignore[arg-type]

        guest = NodeCommands("life", start, lambda _: None, group)
        guest.hold()
        responder = Responder("life", {}, lambda _: None, group)
        for number, argv in enumerate((["say"], ["\ud800"], [], ["say", "x"])):
            table = {**LIKELY, "cmd-id": str(number), "argv": argv}
            take(guest, responder, pack("CMD_RUN", table))
        guest.release()
    assert [request.argv for request in begun] == [("say",), ("say", "x")]


@pytest.mark.parametrize("timeout", [HUGE, -1, 0, float("nan"), float("inf"), "1", [1]])
async def test_times_that_there_are_not(timeout: object) -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:

        def start(request: Request, _listener: object) -> FakeProgram:
            raise AssertionError(request)

        guest = NodeCommands("life", start, lambda _: None, group)
        table = {**LIKELY, "timeout": timeout}
        take(guest, Responder("life", {}, lambda _: None, group), body("CMD_RUN", table, b""))
