"""The same client, unchanged, on the embedded broker, a real RabbitMQ and a real ActiveMQ."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest
from benchmarks.activemq import activemq
from benchmarks.rabbitmq import LOGIN

from boincvm.bus.client import Address, StompBus
from boincvm.bus.dialects import ACTIVEMQ
from boincvm.bus.heart_beats import HeartBeats
from boincvm.bus.transport import Message
from boincvm.errors import BusError
from support.bus.brokers import RunningBroker
from support.bus.embedded import LIMIT
from support.held_port import held_port

pytestmark = pytest.mark.timeout(150)
stock = pytest.mark.parametrize("broker", ["rabbitmq", "activemq"], indirect=True)
"""What the embedded broker does not let happen, or has other tests for."""


@asynccontextmanager
async def two(broker: RunningBroker) -> AsyncIterator[tuple[StompBus, StompBus]]:
    host, guest = [await broker.connect() for _ in range(2)]
    try:
        yield host, guest
    finally:
        for one in (host, guest):
            await one.close()


async def got(bus: StompBus, pattern: str) -> "asyncio.Queue[Message]":
    """Return what arrives on `pattern` from now on."""
    messages: asyncio.Queue[Message] = asyncio.Queue()
    await bus.subscribe(pattern, messages.put_nowait)
    return messages


async def test_patterns(broker: RunningBroker) -> None:
    async with two(broker) as (host, guest):
        seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        for pattern in ("/topic/a", "/topic/a.1", "/topic/a.*", "/topic/a.**", "/topic/*.1"):
            await guest.subscribe(
                pattern, lambda message, p=pattern: seen.put_nowait((message.destination, p))
            )
        for destination in ("/topic/a", "/topic/a.1", "/topic/a.1.2", "/topic/a1", "/topic/b.1"):
            await host.send(destination, {}, b"x")
        async with asyncio.timeout(LIMIT):
            found = sorted([await seen.get() for _ in range(8)])
        assert found == [
            ("/topic/a", "/topic/a"),
            ("/topic/a", "/topic/a.**"),
            ("/topic/a.1", "/topic/*.1"),
            ("/topic/a.1", "/topic/a.*"),
            ("/topic/a.1", "/topic/a.**"),
            ("/topic/a.1", "/topic/a.1"),
            ("/topic/a.1.2", "/topic/a.**"),
            ("/topic/b.1", "/topic/*.1"),
        ]


async def test_all_topics(broker: RunningBroker) -> None:
    """ActiveMQ's own notices are not among them."""
    async with two(broker) as (host, guest):
        messages = await got(guest, "/topic/**")
        await (await broker.connect()).close()
        await host.send("/topic/all.of.it", {}, b"x")
        async with asyncio.timeout(LIMIT):
            assert (await messages.get()).destination == "/topic/all.of.it"


@pytest.mark.parametrize("word", ["g@1", "g:1", "a/b//c", "1-_=+", "queue://g"])
async def test_every_character_of_a_word(broker: RunningBroker, word: str) -> None:
    async with two(broker) as (host, guest):
        for destination in (f"/topic/{word}.x", f"/queue/{word}"):
            messages = await got(guest, destination)
            await host.send(destination, {}, b"x")
            async with asyncio.timeout(LIMIT):
                assert (await messages.get()).destination == destination


@pytest.mark.parametrize("body", [b"", b"a\0b\0", bytes(range(256)), b"\n\n", bytes(1 << 20)])
async def test_a_message_comes_as_it_was_sent(broker: RunningBroker, body: bytes) -> None:
    """Headers are unchanged, too: nothing is added, and only the broker sets the sender."""
    headers = {"message": "a:b\\c\nd\re", "a:b": "", "x": " ü "}
    async with two(broker) as (host, guest):
        messages = await got(guest, "/topic/guest.1")
        await host.send("/topic/guest.1", {**headers, "sender": "somebody"}, body)
        async with asyncio.timeout(LIMIT):
            message = await messages.get()
        sender = LOGIN if broker.dialect.names_sender else ""
        assert message == Message("/topic/guest.1", headers, body, sender)


async def test_many_in_their_order(broker: RunningBroker) -> None:
    async with two(broker) as (host, guest):
        messages = await got(guest, "/topic/order")
        for number in range(5000):
            host.post("/topic/order", {}, str(number).encode())
        async with asyncio.timeout(LIMIT):
            found = [int((await messages.get()).body) for _ in range(5000)]
        assert found == list(range(5000))


async def test_a_subscription_ends(broker: RunningBroker) -> None:
    async with two(broker) as (host, guest):
        messages: list[bytes] = []
        end = await guest.subscribe("/topic/e", lambda message: messages.append(message.body))
        await end()
        last = await got(guest, "/topic/f")  # its receipt comes after the end
        await host.send("/topic/e", {}, b"x")
        await host.send("/topic/f", {}, b"x")
        async with asyncio.timeout(LIMIT):
            await last.get()
        assert messages == []


async def test_queues_keep_messages(broker: RunningBroker) -> None:
    async with two(broker) as (host, guest):
        await host.send("/queue/jobs", {}, b"first")
        await host.send("/queue/jobs", {}, b"second")
        messages = await got(guest, "/queue/jobs")
        async with asyncio.timeout(LIMIT):
            assert [(await messages.get()).body for _ in range(2)] == [b"first", b"second"]


async def test_a_queue_is_shared(broker: RunningBroker) -> None:
    """Each receiver gets some messages, none twice; no broker promises how many each gets."""
    taken: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async def takes(name: str, client: StompBus) -> None:
        await client.subscribe(
            "/queue/shared", lambda message: taken.put_nowait((name, int(message.body)))
        )

    async with two(broker) as (host, guest):
        await takes("host", host)
        await takes("guest", guest)
        for number in range(20):
            await host.send("/queue/shared", {}, str(number).encode())
        async with asyncio.timeout(LIMIT):
            found = [await taken.get() for _ in range(20)]
        assert sorted(number for _, number in found) == list(range(20))
        assert {name for name, _ in found} == {"host", "guest"}


@pytest.mark.parametrize(
    "destination", ["/topic/a,/topic/b", "/topic/a.*", "/topic/>", "/topic/#", "a", "/topic/a?x=y"]
)
async def test_what_is_no_destination(broker: RunningBroker, destination: str) -> None:
    """These are ActiveMQ's composite ones, and those on which nobody could receive."""
    async with two(broker) as (host, guest):
        messages = await got(guest, "/topic/**")
        with pytest.raises(BusError, match="not a destination"):
            await host.send(destination, {}, b"x")
        host.post(destination, {}, b"x")
        assert host.dropped == 1
        await host.send("/topic/good", {}, b"x")
        async with asyncio.timeout(LIMIT):
            assert (await messages.get()).destination == "/topic/good"


@pytest.mark.parametrize("pattern", ["/topic/a,b", "/topic/a.>", "/queue/*", "/topic/#", "a"])
async def test_what_is_no_pattern(broker: RunningBroker, pattern: str) -> None:
    async with two(broker) as (host, _):
        with pytest.raises(BusError, match="nor a pattern"):
            await got(host, pattern)


@stock
async def test_a_foreign_destination_is_counted(broker: RunningBroker) -> None:
    """Another client may send there if the broker permits it."""
    async with two(broker) as (host, guest):
        messages = await got(guest, "/topic/f.**")
        assert host._connection is not None
        host._connection.send_frame("SEND", {"destination": "/topic/f.ü"}, b"x")
        await host.send("/topic/f.u", {}, b"x")
        async with asyncio.timeout(LIMIT):
            assert (await messages.get()).destination == "/topic/f.u"
        assert guest.foreign == 1


async def test_a_wrong_passcode(broker: RunningBroker) -> None:
    # ActiveMQ sometimes closes the connection before it has said why.
    with pytest.raises(BusError, match=r"refused the login: .+|it closed the connection"):
        await broker.connect("wrong")


@stock
async def test_what_the_broker_cannot_bear(broker: RunningBroker) -> None:
    """It does not report to which request its error belongs."""
    async with two(broker) as (host, _):
        with pytest.raises(BusError, match=r"connection to the broker was lost 5 times: .+"):
            await host.send("/topic/x", {"priority": "none"}, b"x")
        await host.send("/topic/x", {}, b"it works again")


@pytest.mark.parametrize(
    "bad",
    [
        b"SEND\ndestination:/topic/x\ncontent-length:x\n\nabc\0",
        b"SEND\ndestination:/topic/x\ncontent-length:9\n\nabc\0\n",
        b"SEND\ndestination:/topic/x\ncontent-length:0\n\nabc\0",
        b"SEND\npriority:1\n\nabc\0",
        b"SENT\ndestination:/topic/x\n\nabc\0",
    ],
    ids=["no length", "too long", "too short", "not a destination", "no command"],
)
async def test_a_frame_that_is_wrong(broker: RunningBroker, bad: bytes) -> None:
    """Every broker refuses it. What our client sends next is accepted, or refused with a reason: to
    ActiveMQ its beginning may be the end of the wrong frame. Nothing waits, and the client keeps
    working. (test_same_bytes.py has what they do with each fault.)"""
    async with two(broker) as (host, guest):
        messages = await got(guest, "/topic/x")
        assert host._connection is not None
        assert host._connection._transport is not None
        host._connection._transport.write(bad)
        refused = "the broker refused the request: something"
        async with asyncio.timeout(LIMIT):
            try:
                await host.send("/topic/x", {}, b"next")
            except BusError as error:
                refused = error.message
            await host.send("/topic/x", {}, b"right")
            while (await messages.get()).body != b"right":
                pass  # of a wrong frame ActiveMQ passes on what it takes for its body
        assert re.match("the broker refused the request: .+", refused)
        assert host.connections <= 2
        assert guest.connections == 1
        assert not host.failure.done()


@stock
async def test_heart_beats_keep_a_silent_connection(
    broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    several, count = asyncio.Event(), 0
    original = HeartBeats.received

    def heard_beat(beats: HeartBeats) -> None:
        nonlocal count
        original(beats)
        count += 1
        if count == 3:  # the broker would have given us up before
            several.set()

    monkeypatch.setattr(HeartBeats, "received", heard_beat)
    for heart_beat in (600, 2000, 5000):  # on a busy host, each side may be late with its beat
        several, count = asyncio.Event(), 0
        bus = await broker.connect(heart_beat=heart_beat)
        async with asyncio.timeout(LIMIT):
            await several.wait()
        await bus.send("/topic/x", {}, b"")
        connections = bus.connections
        await bus.close()
        if connections == 1:
            break
    assert connections == 1


async def test_an_answer_for_each_word_even_when_the_connection_goes(
    broker: RunningBroker,
) -> None:
    async with two(broker) as (host, guest):
        messages = await got(guest, "/topic/x")
        for one in (host, guest):
            assert one._connection is not None
            one._connection.abort()
        # Both are there again, with their subscriptions.
        back = await got(guest, "/topic/back")
        await host.send("/topic/back", {}, b"x")
        await host.send("/topic/x", {}, b"after it")
        async with asyncio.timeout(LIMIT):
            await back.get()
            assert (await messages.get()).body == b"after it"
        assert (host.connections, guest.connections) == (2, 2)


async def test_a_broker_that_is_killed_and_started_again(tmp_path: Path) -> None:
    """Unacknowledged messages are sent again, and the subscriptions are restored."""
    with held_port() as port, ExitStack() as first, ExitStack() as second:
        first.enter_context(activemq(tmp_path, port))
        running = RunningBroker("activemq", Address(port=port), ACTIVEMQ)
        async with two(running) as (host, guest):
            messages = await got(guest, "/topic/x")
            await host.send("/topic/x", {}, b"before")
            async with asyncio.timeout(LIMIT):
                assert (await messages.get()).body == b"before"
            await asyncio.to_thread(first.close)
            pending = asyncio.create_task(host.send("/queue/kept", {}, b"between"))
            await asyncio.to_thread(second.enter_context, activemq(tmp_path, port))
            stored = await got(guest, "/queue/kept")
            async with asyncio.timeout(LIMIT):
                await pending
                assert (await stored.get()).body == b"between"
                await host.send("/topic/x", {}, b"after")
                assert (await messages.get()).body == b"after"
