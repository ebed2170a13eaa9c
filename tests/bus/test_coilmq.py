"""coilmq, an independent broker without a client: our client at its broker, its frames at ours."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Self

import pytest
from coilmq.queue import QueueManager
from coilmq.server.socket_server import ThreadedStompServer
from coilmq.store.memory import MemoryQueue
from coilmq.topic import TopicManager
from coilmq.util.frames import Frame, FrameBuffer

from boincvm.bus.client import Address, StompBus
from boincvm.bus.dialects import Dialect
from boincvm.bus.transport import Message
from support.bus.embedded import LIMIT, PASSCODE, broker

pytestmark = pytest.mark.timeout(60)
ANYTHING = b"a\0b\nc\xff"


class CoilPeer:
    """A client that uses coilmq's frames."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = FrameBuffer()
        self._receipts = count(1)

    @classmethod
    def logged_in(cls, address: Address, versions: str | None) -> tuple[Self, Any]:
        peer = cls(socket.create_connection((address.host, address.port), LIMIT))
        accepted = {"accept-version": versions, "host": "boincvm"} if versions else {}
        peer.send("CONNECT", login="host", passcode=PASSCODE, **accepted)
        return peer, peer.receive()

    def send(self, command: str, body: bytes = b"", **headers: str) -> None:
        self._connection.sendall(Frame(command, headers, body).pack())

    def say_and_wait(self, command: str, body: bytes = b"", **headers: str) -> None:
        receipt = str(next(self._receipts))
        self.send(command, body, receipt=receipt, **headers)
        received = self.receive()
        assert (received.cmd, received.headers["receipt-id"]) == ("RECEIPT", receipt)

    def receive(self) -> Any:
        while (frame := self._buffer.extract_frame()) is None:
            data = self._connection.recv(1 << 16)
            assert data, "the broker has closed"
            self._buffer.append(data)
        return frame

    def close(self) -> None:
        self._connection.close()


@pytest.mark.parametrize(
    ("versions", "agreed"), [(None, "1.0"), ("1.0,1.1", "1.1"), ("1.1,1.2", "1.2")]
)
async def test_its_frames_at_the_embedded_broker(versions: str | None, agreed: str) -> None:
    def use(address: Address) -> None:
        peer, connected = CoilPeer.logged_in(address, versions)
        assert (connected.cmd, connected.headers["version"]) == ("CONNECTED", agreed)
        peer.say_and_wait("SUBSCRIBE", id="1", destination="/topic/a.*")
        peer.send("SEND", ANYTHING, destination="/topic/a.b", message="x")
        topic = peer.receive()
        assert (topic.cmd, topic.body, topic.headers["message"]) == ("MESSAGE", ANYTHING, "x")
        assert topic.headers["destination"] == "/topic/a.b"
        peer.say_and_wait("UNSUBSCRIBE", id="1")
        peer.send("BEGIN", transaction="t")
        peer.send("SEND", b"in it", destination="/queue/q", transaction="t")
        peer.say_and_wait("COMMIT", transaction="t")
        peer.send("SUBSCRIBE", id="2", destination="/queue/q", ack="client-individual")
        queued = peer.receive()
        assert (queued.cmd, queued.body) == ("MESSAGE", b"in it")
        name = {"1.2": {"id": queued.headers.get("ack", "")}}.get(
            agreed, {"message-id": queued.headers["message-id"], "subscription": "2"}
        )
        peer.say_and_wait("ACK", **name)
        peer.say_and_wait("DISCONNECT")
        peer.close()

    async with broker() as (running, address):
        await asyncio.to_thread(use, address)
        assert running.counts == {"messages": 2}


@contextmanager
def coilmq() -> Iterator[Address]:
    """Run its broker in a thread."""
    queues = QueueManager(store=MemoryQueue())
    server = ThreadedStompServer(
        ("127.0.0.1", 0), queue_manager=queues, topic_manager=TopicManager()
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Address(host="127.0.0.1", port=server.server_address[1])
    finally:
        server.shutdown()
        thread.join(LIMIT)
        server.server_close()


async def test_our_client_at_its_broker() -> None:
    """It has no patterns, and its host must have the name by which it knows itself."""
    dialect = Dialect("**", socket.getfqdn())
    with coilmq() as address:
        ours = [await StompBus.open(address, "a", "b", dialect=dialect) for _ in range(2)]
        try:
            received: asyncio.Queue[Message] = asyncio.Queue()
            end = await ours[1].subscribe("/topic/guest.g1", received.put_nowait)
            await ours[0].send("/topic/guest.g1", {"message": "HELLO"}, ANYTHING)
            ours[0].post("/topic/guest.g1", {}, b"posted")
            async with asyncio.timeout(LIMIT):
                first, second = await received.get(), await received.get()
            assert (first.headers, first.body) == ({"message": "HELLO"}, ANYTHING)
            assert (second.destination, second.body) == ("/topic/guest.g1", b"posted")
            await end()
            assert [bus.connections for bus in ours] == [1, 1]
        finally:
            for bus in ours:
                await bus.close()
