"""stomp.py, an independent client, against the embedded broker, in every version of STOMP."""

import asyncio
import queue
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import stomp

from boincvm.bus.client import Address
from support.bus.embedded import LIMIT, PASSCODE, broker

pytestmark = pytest.mark.timeout(60)
KINDS = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}


class Listener(stomp.ConnectionListener):  # type: ignore[misc]
    def __init__(self) -> None:
        self.frames: queue.Queue[tuple[str, Any]] = queue.Queue()

    def on_message(self, frame: Any) -> None:
        self.frames.put(("MESSAGE", frame))

    def on_error(self, frame: Any) -> None:
        self.frames.put(("ERROR", frame))

    def on_receipt(self, frame: Any) -> None:
        self.frames.put(("RECEIPT", frame))

    def on_disconnected(self) -> None:
        self.frames.put(("gone", None))

    def next(self) -> tuple[str, Any]:
        return self.frames.get(timeout=LIMIT)


@pytest_asyncio.fixture
async def address() -> AsyncIterator[Address]:
    async with broker() as (_, address):
        yield address


@pytest.mark.parametrize("version", KINDS)
async def test_topics_queues_and_transactions(address: Address, version: str) -> None:
    await asyncio.to_thread(use, address, version)


def connect(address: Address, version: str, passcode: str = PASSCODE) -> tuple[Any, Listener]:
    places = [(address.host, address.port)]
    options = {} if version == "1.0" else {"heartbeats": (10_000, 10_000)}
    connection = KINDS[version](places, reconnect_attempts_max=1, **options)
    listener = Listener()
    connection.set_listener("test", listener)
    connection.connect("host", passcode, wait=True)
    return connection, listener


def use(address: Address, version: str) -> None:
    connection, listener = connect(address, version)
    # 1.0 has no escapes, 1.1 none for a carriage return.
    strange = {"1.0": "a:b", "1.1": "a:b\\c\nd", "1.2": "a:b\\c\nd\re"}[version]
    connection.subscribe("/topic/a.*", id="1", ack="auto")
    connection.send("/topic/a.b", "grüße", headers={"strange": strange})
    kind, frame = listener.next()
    assert (kind, frame.body) == ("MESSAGE", "grüße")
    assert frame.headers["strange"] == strange
    assert frame.headers["sender"] == "host"
    connection.unsubscribe(id="1")

    connection.subscribe("/queue/q", id="2", ack="client")
    name = connection.begin()
    connection.send("/queue/q", "in a transaction", transaction=name)
    connection.commit(name)
    kind, frame = listener.next()
    assert (kind, frame.body) == ("MESSAGE", "in a transaction")
    if version == "1.0":
        connection.ack(frame.headers["message-id"])
    elif version == "1.1":
        connection.nack(frame.headers["message-id"], "2")
    else:
        connection.nack(frame.headers["ack"])
    if version != "1.0":
        kind, frame = listener.next()
        assert (kind, frame.headers["redelivered"]) == ("MESSAGE", "true")
    connection.disconnect(receipt="bye")
    assert {listener.next()[0] for _ in range(2)} == {"RECEIPT", "gone"}


@pytest.mark.parametrize("version", KINDS)
async def test_a_wrong_passcode(address: Address, version: str) -> None:
    with pytest.raises(stomp.exception.ConnectFailedException):
        await asyncio.to_thread(connect, address, version, "wrong")
