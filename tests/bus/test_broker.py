"""The embedded broker over real sockets: what it does, and what it prevents."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from boincvm.bus.access import Account
from boincvm.bus.broker import Broker, BrokerLimits
from boincvm.bus.client import Address, StompBus
from boincvm.bus.transport import Message
from support.bus.embedded import ALL, DIGEST, LIMIT, PASSCODE, Peer, accounts, broker

pytestmark = pytest.mark.timeout(60)
Running = tuple[Broker, Address]


@pytest_asyncio.fixture
async def running() -> AsyncIterator[Running]:
    async with broker() as both:
        yield both


async def test_a_topic_goes_to_all_who_have_subscribed(running: Running) -> None:
    _, address = running
    peers = [await Peer.logged_in(address) for _ in range(3)]
    for number, pattern in enumerate(("/topic/a.*", "/topic/**", "/topic/b.x")):
        peers[number].send("SUBSCRIBE", destination=pattern, id=f"n{number}", receipt="r")
        assert (await peers[number].receive()).headers["receipt-id"] == "r"
    text = b"a\0b\n"
    peers[2].send("SEND", text, destination="/topic/a.x", colour="a:b\nc", sender="somebody")
    for number in (0, 1):
        frame = await peers[number].receive()
        assert (frame.command, frame.body) == ("MESSAGE", text)
        assert frame.headers["subscription"] == f"n{number}"
        assert frame.headers["destination"] == "/topic/a.x"
        assert frame.headers["colour"] == "a:b\nc"
        assert frame.headers["sender"] == "host"  # whatever it says of itself
    peers[2].send("SEND", b"", destination="/topic/b.x", receipt="end")
    assert {(await peers[2].receive()).command for _ in range(2)} == {"MESSAGE", "RECEIPT"}
    for peer in peers:
        await peer.close()


async def test_a_queue_gives_each_message_to_one_and_again_if_that_one_goes(
    running: Running,
) -> None:
    _, address = running
    first, second = await Peer.logged_in(address), await Peer.logged_in(address)
    for body in (b"1", b"2", b"3"):
        first.send("SEND", body, destination="/queue/jobs")
    first.send("SUBSCRIBE", destination="/queue/jobs", id="1", ack="client-individual")
    frames = [await first.receive() for _ in range(3)]
    assert [frame.body for frame in frames] == [b"1", b"2", b"3"]
    first.send("ACK", id=frames[1].headers["ack"], receipt="r")
    assert (await first.receive()).command == "RECEIPT"
    await first.close()
    second.send("SUBSCRIBE", destination="/queue/jobs", id="1", ack="client")
    frames = [await second.receive() for _ in range(2)]
    assert [frame.body for frame in frames] == [b"1", b"3"]
    assert frames[0].headers["redelivered"] == "true"
    second.send("NACK", id=frames[1].headers["ack"])  # and all before it
    assert [(await second.receive()).body for _ in range(2)] == [b"1", b"3"]
    await second.close()


async def test_a_transaction_is_all_or_nothing(running: Running) -> None:
    _, address = running
    peer = await Peer.logged_in(address)
    peer.send("SUBSCRIBE", destination="/topic/t", id="1")
    for name, end in (("a", "ABORT"), ("b", "COMMIT")):
        peer.send("BEGIN", transaction=name)
        for number in range(2):
            body = f"{name}{number}".encode()
            peer.send("SEND", body, destination="/topic/t", transaction=name)
        peer.send(end, transaction=name)
    assert [(await peer.receive()).body for _ in range(2)] == [b"b0", b"b1"]
    await peer.close()


@pytest.mark.parametrize(
    "frame",
    [
        ("SEND", {"destination": "/topic/host.g2"}),
        ("SEND", {"destination": "/topic/guest.g1"}),
        ("SEND", {"destination": "/topic/host.*"}),
        ("SEND", {"destination": "/nowhere"}),
        ("SEND", {}),
        ("SUBSCRIBE", {"destination": "/topic/guest.g2", "id": "1"}),
        ("SUBSCRIBE", {"destination": "/topic/guest.*", "id": "1"}),
        ("SUBSCRIBE", {"destination": "/topic/**", "id": "1"}),
        ("SUBSCRIBE", {"destination": "/queue/all.x", "id": "1"}),
        ("SUBSCRIBE", {"destination": "/topic/all.x"}),
        ("SUBSCRIBE", {"destination": "/topic/all.x", "id": "1", "ack": "never"}),
        ("UNSUBSCRIBE", {"id": "1"}),
        ("ACK", {"id": "1"}),
        ("COMMIT", {"transaction": "1"}),
        ("SEND", {"destination": "/topic/host.g1", "transaction": "1"}),
        ("MESSAGE", {}),
        ("CONNECT", {"login": "host"}),
    ],
    ids=str,
)
async def test_what_a_guest_may_not_send(
    running: Running, frame: tuple[str, dict[str, str]]
) -> None:
    of, address = running
    host = await Peer.logged_in(address)
    host.send("SUBSCRIBE", destination="/topic/**", id="1", receipt="r")
    await host.receive()
    guest = await Peer.logged_in(address, "g1")
    guest.send(frame[0], **{**frame[1], "receipt": "mine"})
    error = await guest.receive()
    assert error.command == "ERROR"
    assert error.headers["receipt-id"] == "mine"
    assert await guest.is_closed()
    host.send("SEND", b"mark", destination="/topic/x")
    assert (await host.receive()).body == b"mark"  # nothing has come before
    assert of.counts["refused"] == 1
    await guest.close()
    await host.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"login": "host", "passcode": "wrong"},
        {"login": "nobody", "passcode": "right"},
        {},
        {"login": "host", "passcode": "right", "accept-version": "2.0"},
        {"login": "host", "passcode": "right", "heart-beat": "often"},
    ],
    ids=str,
)
async def test_who_is_not_let_in(running: Running, headers: dict[str, str]) -> None:
    _, address = running
    peer = await Peer.open(address)
    peer.send("CONNECT", **headers)
    peer.send("SEND", b"", destination="/topic/x")
    assert (await peer.receive()).command == "ERROR"
    assert await peer.is_closed()
    await peer.close()


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"SEND\n\n\0", b"\xff\xfe\n\n\0", b"CONNECT\n" + b"a" * 20000],
)
async def test_what_is_no_login(running: Running, data: bytes) -> None:
    _, address = running
    peer = await Peer.open(address)
    peer.writer.write(data)
    assert (await peer.receive()).command == "ERROR"
    assert await peer.is_closed()
    await peer.close()


async def test_who_says_nothing_or_falls_silent_is_dropped() -> None:
    async with broker(BrokerLimits(login=0.2)) as (of, address):
        silent = await Peer.open(address)
        assert await silent.is_closed()
        assert of.counts["refused: did not log in"] == 1
        assert of.connections == 0
        await silent.close()
    async with broker(BrokerLimits(heart_beat=100)) as (of, address):
        half_open = await Peer.logged_in(address, heart_beat="100,0")
        assert await half_open.is_closed()
        assert of.counts["dropped: silent"] == 1
        assert of.connections == 0
        await half_open.close()


async def test_the_broker_beats_too() -> None:
    async with broker(BrokerLimits(heart_beat=100)) as (_, address):
        peer = await Peer.logged_in(address, heart_beat="0,100")
        async with asyncio.timeout(LIMIT):
            assert await peer.reader.readexactly(3) == b"\n\n\n"
        await peer.close()


async def test_one_that_never_reads_is_dropped_and_others_are_served() -> None:
    async with broker(BrokerLimits(waiting=1 << 18)) as (of, address):
        deaf, good, host = [await Peer.logged_in(address) for _ in range(3)]
        for peer in (deaf, good):
            peer.send("SUBSCRIBE", destination="/topic/x", id="1", receipt="r")
            await peer.receive()
        sent = 0
        async with asyncio.timeout(LIMIT):
            while not of.counts["dropped: does not read"]:
                host.send("SEND", bytes(1 << 16), destination="/topic/x")
                sent += 1
                await host.writer.drain()
                assert len((await good.receive()).body) == 1 << 16
        assert of.connections == 2
        for peer in (deaf, good, host):
            await peer.close()


async def ask_for_ever(peer: Peer) -> None:
    async with asyncio.timeout(LIMIT):
        while True:
            peer.send("SEND", b"", destination="/topic/x", receipt="r" * 10000)
            await peer.writer.drain()


async def test_one_that_wants_receipts_and_never_reads_them_is_dropped() -> None:
    async with broker(BrokerLimits(waiting=1 << 16)) as (of, address):
        deaf = await Peer.logged_in(address)
        with pytest.raises(ConnectionError):
            await ask_for_ever(deaf)
        assert of.counts["dropped: does not read"] == 1
        await deaf.close()


async def test_a_queue_waits_for_one_that_does_not_read() -> None:
    async with broker() as (_, address):
        slow, host = await Peer.logged_in(address), await Peer.logged_in(address)
        slow.send("SUBSCRIBE", destination="/queue/q", id="1", receipt="r")
        await slow.receive()
        for number in range(200):
            host.send("SEND", b"%06d" % number * 10000, destination="/queue/q")
            await host.writer.drain()
        host.send("SEND", b"", destination="/queue/q", receipt="end")
        assert (await host.receive()).command == "RECEIPT"
        seen = [(await slow.receive()).body[:6] for _ in range(201)]
        assert seen == [*(b"%06d" % number for number in range(200)), b""]
        await slow.close()
        await host.close()


async def test_one_that_floods_is_slowed_down_and_loses_nothing() -> None:
    known = accounts()
    known.add(Account("flood", DIGEST, ALL, ALL, frames=200))
    async with broker(known=known) as (of, address):
        host, loop = await Peer.logged_in(address), asyncio.get_running_loop()
        host.send("SUBSCRIBE", destination="/topic/x", id="1", receipt="r")
        await host.receive()
        begin = loop.time()  # before its connection, as it may save frames up from then on
        flood = await Peer.logged_in(address, "flood")
        for number in range(500):
            flood.send("SEND", b"%d" % number, destination="/topic/x")
        bodies = [(await host.receive()).body for _ in range(500)]
        assert bodies == [b"%d" % number for number in range(500)]
        assert loop.time() - begin > 2  # 500 at 200 a second
        assert of.counts["slowed down"] > 0
        await host.close()
        await flood.close()


async def test_one_that_floods_takes_turns_with_others() -> None:
    """Even if it may send more than the host can handle."""
    known = accounts()
    known.add(Account("flood", DIGEST, ALL, ALL, frames=1e9))
    async with broker(known=known) as (_, address):
        host, flood = await Peer.logged_in(address), await Peer.logged_in(address, "flood")
        other = await Peer.logged_in(address)
        host.send("SUBSCRIBE", destination="/topic/x", id="1", receipt="r")
        await host.receive()
        for _ in range(2000):
            flood.send("SEND", b"flood", destination="/topic/x")
        other.send("SEND", b"other", destination="/topic/x")
        bodies = [(await host.receive()).body for _ in range(2001)]
        assert bodies.index(b"other") < 500
        for peer in (host, flood, other):
            await peer.close()


@pytest.mark.parametrize(
    ("limits", "frames"),
    [
        (BrokerLimits(body=100), [("SEND", bytes(101), "/topic/x", {})]),
        (
            BrokerLimits(subscriptions=1),
            [("SUBSCRIBE", b"", "/topic/x", {"id": str(n)}) for n in range(2)],
        ),
        (BrokerLimits(queued=1), [("SEND", b"", "/queue/x", {})] * 2),
        (BrokerLimits(queued_bytes=10), [("SEND", bytes(11), "/queue/x", {})]),
        (BrokerLimits(queues=1), [("SEND", b"", f"/queue/{n}", {}) for n in range(2)]),
        (BrokerLimits(transactions=0), [("BEGIN", b"", "/topic/x", {"transaction": "1"})]),
        (
            BrokerLimits(staged=0),
            [
                ("BEGIN", b"", "/topic/x", {"transaction": "1"}),
                ("SEND", b"", "/topic/x", {"transaction": "1"}),
            ],
        ),
    ],
)
async def test_caps(
    limits: BrokerLimits, frames: list[tuple[str, bytes, str, dict[str, str]]]
) -> None:
    async with broker(limits) as (_, address):
        peer = await Peer.logged_in(address)
        for command, body, destination, headers in frames:
            peer.send(command, body, destination=destination, **headers)
        assert (await peer.receive()).command == "ERROR"
        assert await peer.is_closed()
        await peer.close()


async def test_no_more_connections_than_the_limit() -> None:
    async with broker(BrokerLimits(connections=2)) as (_, address):
        peers = [await Peer.logged_in(address) for _ in range(2)]
        third = await Peer.open(address)
        assert await third.is_closed()
        peers[0].send("DISCONNECT", receipt="bye")
        assert await peers[0].is_closed()
        peers.append(await Peer.logged_in(address))
        for peer in (*peers, third):
            await peer.close()


async def test_nothing_is_left_of_a_peer_that_went(running: Running) -> None:
    of, address = running
    peer = await Peer.logged_in(address)
    peer.send("SUBSCRIBE", destination="/topic/a.*", id="1")
    peer.send("SUBSCRIBE", destination="/queue/a", id="2")
    peer.send("DISCONNECT", receipt="bye")
    assert (await peer.receive()).headers["receipt-id"] == "bye"
    assert await peer.is_closed()
    assert (of.connections, of.topics._root.is_empty, of._queues) == (0, True, {})
    await peer.close()


async def test_what_comes_before_a_fault_counts(running: Running) -> None:
    """The network may divide it in any way; here everything arrives at once."""
    _, address = running
    first, second = await Peer.logged_in(address), await Peer.logged_in(address)
    second.send("SUBSCRIBE", destination="/topic/a", id="1", receipt="r")
    assert (await second.receive()).command == "RECEIPT"
    first.writer.write(b"SEND\ndestination:/topic/a\n\nx\0HELLO\n\n\0")
    assert (await second.receive()).body == b"x"
    assert (await first.receive()).command == "ERROR"
    assert await first.is_closed()
    for peer in (first, second):
        await peer.close()


@pytest.mark.parametrize("version", ["1.0", "1.2"])
async def test_the_largest_head_reaches_our_own_client(running: Running, version: str) -> None:
    """This includes the broker's additions, and escapes that its sender need not write."""
    _, address = running
    reader = await StompBus.open(address, "host", PASSCODE)
    messages: asyncio.Queue[Message] = asyncio.Queue()
    await reader.subscribe("/topic/a", messages.put_nowait)
    peer = await Peer.logged_in(address, accept_version=version)
    many = b"".join(b"%d:a\n" % number for number in range(63))
    letter = b"\\" if version == "1.0" else b":"
    long = b"x:" + letter * ((16 << 10) - 100) + b"\n"
    for headers in (many, long):
        peer.writer.write(b"SEND\ndestination:/topic/a\n" + headers + b"\nbody\0")
        async with asyncio.timeout(LIMIT):
            assert (await messages.get()).body == b"body"
    assert reader.connections == 1
    await peer.close()
    await reader.close()


async def test_a_version_that_nobody_speaks(running: Running) -> None:
    _, address = running
    peer = await Peer.open(address)
    peer.send("CONNECT", **{"accept-version": "2.0", "host": "x"})
    error = await peer.receive()
    assert (error.command, error.headers["version"]) == ("ERROR", "1.0,1.1,1.2")
    assert await peer.is_closed()
    await peer.close()
