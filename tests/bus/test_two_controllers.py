"""Two controllers on one bus, each with its own guests: neither disturbs the other."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import product

import pytest

from boincvm.bus.access import Account, Accounts
from boincvm.bus.client import StompBus
from boincvm.controller.commands.command import OUTPUT_CAPACITY, Command, State
from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.registry import Change
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.program import Request
from boincvm.node.command import Listener
from boincvm.node.node import Node
from support.bus.brokers import RunningBroker, running_broker
from support.bus.embedded import ALL, DIGEST, LIMIT, PASSCODE
from support.bus.embedded import broker as embedded_broker
from support.controller.lossy import FakeProgram

pytestmark = pytest.mark.timeout(150)
BEAT = 0.2


Connect = Callable[[str], AbstractAsyncContextManager[StompBus]]
"""Takes a login. Controllers have "host"; at RabbitMQ all have the same one."""


@pytest.fixture(scope="module", params=["embedded", "rabbitmq"])
def elsewhere(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBroker | None]:
    """Return None for an embedded broker in our own process."""
    if request.param == "embedded":
        yield None
        return
    with running_broker(request.param, tmp_path_factory.mktemp("broker")) as running:
        yield running


@asynccontextmanager
async def broker(elsewhere: RunningBroker | None) -> AsyncIterator[Connect]:
    places = {"may_send": ("/topic/host.{login}",), "may_subscribe": ("/topic/guest.{login}",)}
    guests = [Account(f"{letter}.1", DIGEST, **places) for letter in "abcd"]
    async with AsyncExitStack() as stack:
        if elsewhere is None:
            known = Accounts([Account("host", DIGEST, ALL, ALL), *guests])
            _, address = await stack.enter_async_context(embedded_broker(known=known))

        @asynccontextmanager
        async def connect(login: str) -> AsyncIterator[StompBus]:
            if elsewhere is None:
                opened = await StompBus.open(address, login, PASSCODE)
            else:
                opened = await elsewhere.connect()
            try:
                yield opened
            finally:
                await opened.close()

        yield connect


@asynccontextmanager
async def controller(
    connect: Connect, owner: str, *wanted: str, former: Iterable[Command] = ()
) -> AsyncIterator[Hub]:
    """Return a controller that knows the guests `wanted`; `former`: commands of its former life."""
    found: set[str] = set()
    news = asyncio.Event()

    def report(guest: Guest, change: Change) -> None:
        if change is Change.FOUND:
            found.add(guest.id)
            news.set()

    async with connect("host") as bus:
        hub = Hub(bus, report, owner=owner)
        hub.commands.load(former)
        await hub.open()
        try:
            async with asyncio.timeout(LIMIT):
                while not set(wanted) <= found:
                    news.clear()
                    await news.wait()
            yield hub
        finally:
            await hub.close()


@asynccontextmanager
async def guest(
    connect: Connect, name: str, beat: float = BEAT
) -> AsyncIterator[list[FakeProgram]]:
    """Make a guest; return what it was asked to run."""
    programs: list[FakeProgram] = []

    def start(request: Request, listener: Listener) -> FakeProgram:
        programs.append(FakeProgram(request, listener))
        return programs[-1]

    async with asyncio.TaskGroup() as tasks, connect(name) as bus:
        made = Node(bus, Guest(name, name, instance=f"{name}-1"), start, tasks, beat)
        await made.open()
        try:
            yield programs
        finally:
            await made.close()
            for program in programs:
                program.signal(9)


async def outcome(command: Command) -> dict[str, tuple[State, bytes]]:
    async with asyncio.timeout(LIMIT):
        await command.finished()
    return {
        name: (answer.state, answer.outputs["stdout"].read(0, OUTPUT_CAPACITY)[1])
        for name, answer in command.answers.items()
    }


async def test_both_address_all_and_each_gets_its_own_answers(
    elsewhere: RunningBroker | None,
) -> None:
    """Even under the same id: a client's id at one controller does not concern the other."""
    async with (
        broker(elsewhere) as connect,
        controller(connect, "a/") as first,
        controller(connect, "b/") as second,
        # At a beat they would say again what has not been acknowledged yet.
        guest(connect, "a.1", beat=3600.0) as of_a,
        guest(connect, "b.1", beat=3600.0) as of_b,
    ):
        async with asyncio.timeout(LIMIT):
            for hub, name in product((first, second), ("a.1", "b.1")):
                await hub.registry.wait_for(name)
        long = "x" * 20_000  # in many pieces, each of which is acknowledged
        one = first.run("all", Request(("say", "one", long)), command_id="nightly")
        two = second.run("*.1", Request(("say", "two", long)), command_id="nightly")
        for command, word in ((one, "one"), (two, "two")):
            expected = (State.ENDED, f"{word}{long}".encode())
            assert await outcome(command) == {"a.1": expected, "b.1": expected}
        assert len(of_a) == len(of_b) == 2
        assert first.commands.counts["not asked"] == second.commands.counts["not asked"] == 0
        assert first.commands.counts["requested by another"] > 0
        pings = await asyncio.gather(
            *(hub.pings.ping(["a.1", "b.1"], LIMIT) for hub in (first, second))
        )
        assert all(None not in ping.values() and len(ping) == 2 for ping in pings)


async def test_what_ends_while_its_controller_is_away_is_kept_for_it(
    elsewhere: RunningBroker | None,
) -> None:
    """The other controller, which does not know the command, makes no guest forget it."""
    async with broker(elsewhere) as connect, guest(connect, "d.1") as programs:
        async with controller(connect, "b/", "d.1") as other:
            async with controller(connect, "a/", "d.1") as former:
                command = former.run("d.1", Request(("wait", "begin")), command_id="mine")
                async with asyncio.timeout(LIMIT):
                    while command.answers["d.1"].state is not State.RUNNING:
                        await command.changed()
            received = other.commands.counts["requested by another"]
            programs[0].signal(15)
            async with asyncio.timeout(LIMIT):
                while other.commands.counts["requested by another"] == received:
                    await other.pings.ping(["d.1"], LIMIT)
            async with controller(connect, "a/", "d.1", former=[command]):
                assert await outcome(command) == {"d.1": (State.ENDED, b"begin")}
            result = command.answers["d.1"].result
            assert result is not None
            assert (result.signal, result.error) == (15, "")
        assert len(programs) == 1


async def test_both_know_all_that_come_and_go(elsewhere: RunningBroker | None) -> None:
    async with (
        broker(elsewhere) as connect,
        controller(connect, "a/") as first,
        controller(connect, "b/") as second,
    ):
        async with guest(connect, "c.1"):
            async with asyncio.timeout(LIMIT):
                for hub in (first, second):
                    assert (await hub.registry.wait_for("c.1")).instance == "c.1-1"
        async with asyncio.timeout(LIMIT):
            for hub in (first, second):
                while hub.registry.presence("c.1"):
                    await hub.pings.ping(["c.1"], 0.1)
