"""Commands to guests over a real broker, by pattern, while the broker is interrupted."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from boincvm.bus.client import Address
from boincvm.controller.commands.command import OUTPUT_CAPACITY, Command, State
from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.registry import Change
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.program import Request
from boincvm.controller.protocol.requests import Reply
from boincvm.controller.protocol.selector import parse_selector
from boincvm.errors import UsageError
from boincvm.node.command import Listener
from boincvm.node.node import Node
from support.bus.embedded import LIMIT, broker, bus
from support.controller.lossy import FakeProgram

pytestmark = pytest.mark.timeout(90)
BEAT = 0.2


class Watched(Hub):
    """A set of guests that can be awaited until it has seen a number of changes."""

    seen: list[tuple[str, Change]]
    news: asyncio.Event

    async def until(self, *changes: tuple[str, Change]) -> None:
        async with asyncio.timeout(LIMIT):
            while not set(changes) <= set(self.seen):
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def hub(address: Address) -> AsyncIterator[Watched]:
    seen: list[tuple[str, Change]] = []
    news = asyncio.Event()

    def report(guest: Guest, change: Change) -> None:
        seen.append((guest.id, change))
        news.set()

    async with bus(address) as opened:
        made = Watched(opened, report)
        made.seen, made.news = seen, news
        await made.open()
        try:
            yield made
        finally:
            await made.close()


async def add(arguments: Mapping[str, object], data: bytes) -> Reply:
    return Reply({"sum": sum(data), **arguments}, data * 2)


@asynccontextmanager
async def guest(
    address: Address, name: str, programs: list[FakeProgram], **labels: str
) -> AsyncIterator[Node]:
    def start(request: Request, listener: Listener) -> FakeProgram:
        programs.append(FakeProgram(request, listener))
        return programs[-1]

    async with asyncio.TaskGroup() as tasks, bus(address, name) as opened:
        me = Guest(name, name, labels=labels, instance=f"{name}-1")
        made = Node(opened, me, start, tasks, BEAT, {"add": add})
        await made.open()
        try:
            yield made
        finally:
            await made.close()
            for program in programs:
                program.signal(9)


def outputs(command: Command) -> dict[str, bytes]:
    return {
        name: answer.outputs["stdout"].read(0, OUTPUT_CAPACITY)[1]
        for name, answer in command.answers.items()
    }


async def finished(command: Command) -> dict[str, State]:
    async with asyncio.timeout(LIMIT):
        await command.finished()
    return {name: answer.state for name, answer in command.answers.items()}


async def test_two_of_three_by_their_labels() -> None:
    programs: list[FakeProgram] = []
    async with (
        broker() as (_, address),
        hub(address) as made,
        guest(address, "g1", programs, site="cern"),
        guest(address, "g2", programs, site="desy"),
        guest(address, "g3", programs, site="cern"),
    ):
        await made.until(*((name, Change.FOUND) for name in ("g1", "g2", "g3")))
        command = made.run("site=cern", Request(("say", "hi"), stdin=b" there"))
        assert await finished(command) == {"g1": State.ENDED, "g3": State.ENDED}
        assert outputs(command) == {"g1": b"hi there", "g3": b"hi there"}
        everybody = made.run("g*", Request(("say", "all")))
        assert len(await finished(everybody)) == 3
        assert len(programs) == 5


async def test_the_broker_goes_and_comes_back() -> None:
    """Running programs continue, messages sent meanwhile are repeated, and nothing runs twice."""
    programs: list[FakeProgram] = []
    async with (
        broker() as (first, address),
        hub(address) as made,
        guest(address, "g1", programs),
    ):
        await made.until(("g1", Change.FOUND))
        runs = made.run("g1", Request(("wait", "begin ")))
        async with asyncio.timeout(LIMIT):
            while outputs(runs) != {"g1": b"begin "}:
                await runs.changed()
        await first.close()
        programs[0].signal(15)  # ends while nobody can hear it
        asked = made.run("g1", Request(("say", "late")))
        async with broker(port=address.port):
            assert await finished(runs) == {"g1": State.ENDED}
            assert await finished(asked) == {"g1": State.ENDED}
            assert outputs(runs) == {"g1": b"begin "}
            assert outputs(asked) == {"g1": b"late"}
            assert len(programs) == 2


async def test_another_controller_finds_the_guests_again() -> None:
    """They are asked to identify themselves at their next heartbeat; nothing is run again."""
    programs: list[FakeProgram] = []
    async with broker() as (_, address), guest(address, "g1", programs):
        async with hub(address) as former:
            await former.until(("g1", Change.FOUND))
            command = former.run("g1", Request(("wait", "begin")), command_id="mine")
            async with asyncio.timeout(LIMIT):
                while outputs(command) != {"g1": b"begin"}:
                    await command.changed()
        async with hub(address) as made:
            await made.until(("g1", Change.FOUND))
            again = made.run("g1", Request(("wait", "begin")), command_id="mine")
            async with asyncio.timeout(LIMIT):
                while again.answers["g1"].state is not State.RUNNING:
                    await again.changed()
            programs[0].signal(15)
            assert await finished(again) == {"g1": State.ENDED}
            assert again.answers["g1"].outputs["stdout"].first == len("begin")
            assert len(programs) == 1


async def test_a_guest_that_leaves_has_lost_its_commands() -> None:
    programs: list[FakeProgram] = []
    async with broker() as (_, address), hub(address) as made:
        async with guest(address, "g1", programs):
            await made.until(("g1", Change.FOUND))
            command = made.run("g1", Request(("wait",)))
        assert await finished(command) == {"g1": State.LOST}
        assert command.answers["g1"].why == "the guest has left"


async def test_words_that_a_guest_does_not_know() -> None:
    programs: list[FakeProgram] = []
    async with broker() as (_, address), bus(address) as host, guest(address, "g1", programs) as me:
        received: asyncio.Queue[bytes] = asyncio.Queue()
        await host.subscribe("/topic/host.g1", lambda message: received.put_nowait(message.body))
        for body in (b"eval 1", b"DANCE", b'PING {"timestamp": 7}'):
            await host.send("/topic/guest.g1", {}, body)
        sent: list[bytes] = []
        async with asyncio.timeout(LIMIT):
            while not sent or not sent[-1].startswith(b"PONG"):
                sent.append(await received.get())
        assert b'AINT {"message":"DANCE"}\n' in sent
        assert sent[-1] == b'PONG {"timestamp":7}\n'
        assert me.counts["invalid"] == 1
        assert programs == []


async def test_what_is_asked_while_the_broker_is_away() -> None:
    async with broker() as (first, address), hub(address) as made, guest(address, "g1", []):
        await made.until(("g1", Change.FOUND))
        (asked,) = made.registry.find(parse_selector("g1"))
        reply = await made.requester.ask(asked, "add", {"a": 1}, b"\x01\x02", within=LIMIT)
        assert reply == Reply({"sum": 3, "a": 1}, b"\x01\x02" * 2)
        with pytest.raises(UsageError, match="does not know"):
            await made.requester.ask(asked, "subtract", within=LIMIT)
        await first.close()
        async with asyncio.TaskGroup() as tasks:
            late = tasks.create_task(made.requester.ask(asked, "add", within=LIMIT))
            async with broker(port=address.port):
                assert (await late).table == {"sum": 0}
