"""The same client, unchanged, on a real RabbitMQ."""

import asyncio
from collections.abc import Iterator

import pytest
from benchmarks.rabbitmq import LOGIN, PASSCODE, rabbitmq
from embedded import LIMIT

from boincvm.bus.client import Address, StompBus
from boincvm.bus.dialects import RABBITMQ
from boincvm.bus.transport import Message
from boincvm.errors import BusError

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as (port, _):
        yield Address(port=port)


async def connect(address: Address) -> StompBus:
    return await StompBus.open(address, LOGIN, PASSCODE, dialect=RABBITMQ)


async def test_topics_and_patterns(address: Address) -> None:
    host, guest = [await connect(address) for _ in range(2)]
    seen: asyncio.Queue[tuple[str, Message]] = asyncio.Queue()
    for pattern in ("/topic/guest.*", "/topic/guest.**", "/topic/guest.1"):
        await guest.subscribe(pattern, lambda message, p=pattern: seen.put_nowait((p, message)))
    await host.send("/topic/guest.1", {"word": "a:b", "sender": "somebody"}, b"a\0b")
    await host.send("/topic/guest.1.2", {}, b"deep")
    async with asyncio.timeout(LIMIT):
        found = [await seen.get() for _ in range(4)]
    flat = sorted(pattern for pattern, message in found if message.body == b"a\0b")
    assert flat == ["/topic/guest.*", "/topic/guest.**", "/topic/guest.1"]
    assert [pattern for pattern, message in found if message.body == b"deep"] == ["/topic/guest.**"]
    message = next(message for _, message in found if message.body == b"a\0b")
    assert (message.destination, message.headers["word"]) == ("/topic/guest.1", "a:b")
    assert message.sender == ""  # this broker does not vouch for anybody
    for one in (host, guest):
        await one.close()


async def test_queues_keep_messages(address: Address) -> None:
    host = await connect(address)
    await host.send("/queue/jobs", {}, b"first")
    await host.send("/queue/jobs", {}, b"second")
    seen: asyncio.Queue[bytes] = asyncio.Queue()
    await host.subscribe("/queue/jobs", lambda message: seen.put_nowait(message.body))
    async with asyncio.timeout(LIMIT):
        assert [await seen.get(), await seen.get()] == [b"first", b"second"]
    await host.close()


async def test_a_wrong_passcode(address: Address) -> None:
    with pytest.raises(BusError, match="refuses the login"):
        await StompBus.open(address, LOGIN, "wrong", dialect=RABBITMQ)


async def test_an_answer_for_each_word_even_when_the_connection_goes(address: Address) -> None:
    host, other = [await connect(address) for _ in range(2)]
    seen: asyncio.Queue[bytes] = asyncio.Queue()
    await other.subscribe("/topic/x", lambda message: seen.put_nowait(message.body))
    assert host._connection is not None
    host._connection.abort()
    await host.send("/topic/x", {}, b"after it")
    async with asyncio.timeout(LIMIT):
        assert await seen.get() == b"after it"
    assert host.connections == 2
    for one in (host, other):
        await one.close()
