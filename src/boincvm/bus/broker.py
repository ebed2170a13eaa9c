"""An embedded STOMP broker: topics with wildcards, queues, accounts. Nothing is kept on disk.

Peers are not trusted: what they may say and hear is their account's, every size has a cap, one
that does not read is dropped or waits, and one that floods is read more slowly.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from boincvm.bus.access import Accounts
from boincvm.bus.queues import Queue, Queued
from boincvm.bus.stomp import MAXIMUM_BODY
from boincvm.bus.topics import QUEUE, Subscriptions
from boincvm.bus.versions import encode_lines
from boincvm.errors import BusError, host_error
from boincvm.host.resources import most_open_files
from boincvm.host.sockets import private_listener

_SPARE_DESCRIPTORS = 64
_TLS_BUFFER = 16384
"""asyncio's own choice costs 280 KiB a connection."""


class BrokerLimits(NamedTuple):
    """connections: beyond them none is taken, besides what the process's limit of open files
    says. body: bytes of a message. subscriptions, unacknowledged, transactions: of one
    connection; of a transaction `staged` frames. waiting: bytes for a connection that does not
    read; a topic's subscriber is dropped then. login: seconds in which a connection must have
    logged in. heart_beat: milliseconds, that we offer and want. queued: messages, and
    queued_bytes: bytes, in one queue; queues: their number."""

    connections: int = 20_000
    body: int = MAXIMUM_BODY
    subscriptions: int = 64
    unacknowledged: int = 256
    transactions: int = 16
    staged: int = 256
    waiting: int = 4 << 20
    login: float = 10.0
    heart_beat: int = 10_000
    queued: int = 10_000
    queued_bytes: int = 64 << 20
    queues: int = 10_000


class TopicSubscriber(Protocol):
    """A subscription to a topic."""

    version: str

    def deliver(self, shared: bytes) -> None:
        """`shared`: a MESSAGE in the subscriber's version, but for its first line and the
        header `subscription`."""


class Connected(Protocol):
    """What the broker must know of a connection. login: once it has logged in."""

    @property
    def login(self) -> str | None: ...

    def close(self) -> None: ...


class Broker:
    """`counts`: what was refused, dropped and passed on since the start, by name."""

    def __init__(self, accounts: Accounts, limits: BrokerLimits | None = None) -> None:
        self.accounts = accounts
        self.limits = limits or BrokerLimits()
        self.topics: Subscriptions[TopicSubscriber] = Subscriptions()
        self.counts: Counter[str] = Counter()
        self._queues: dict[str, Queue] = {}
        self._connections: set[Connected] = set()
        self._servers: list[asyncio.Server] = []
        self._number = 0
        descriptors = most_open_files() - _SPARE_DESCRIPTORS
        self._most = min(self.limits.connections, max(descriptors, 1))

    async def listen_tcp(
        self, host: str, port: int, security: ssl.SSLContext | None = None
    ) -> tuple[str, int]:
        """Takes connections there; the address, with the port that was chosen for port 0.
        Raises BusError."""
        from boincvm.bus.broker_connection import BrokerConnection

        loop = asyncio.get_running_loop()
        if security is not None:
            asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER  # type: ignore[attr-defined]
        try:
            server = await loop.create_server(
                lambda: BrokerConnection(self), host, port, ssl=security, backlog=1024
            )
        except OSError as error:
            raise BusError(
                f"the broker cannot listen on {host} port {port}: {error.strerror or error}",
                hint="another program may have that port; choose another one",
            ) from error
        self._servers.append(server)
        name = server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def listen_unix(self, path: Path) -> None:
        """Takes connections of this user's processes. Raises BusError."""
        from boincvm.bus.broker_connection import BrokerConnection

        loop = asyncio.get_running_loop()
        try:
            listener = private_listener(path)
            server = await loop.create_server(lambda: BrokerConnection(self), sock=listener)
        except OSError as error:
            raise host_error(
                f"the broker cannot listen on {path.name}",
                error,
                BusError,
                hint="the directory must be there, and this user's",
            ) from error
        self._servers.append(server)

    async def close(self) -> None:
        """No connection is left, and none is taken any more."""
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.close()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    # For connections.

    def admit(self, connection: Connected) -> bool:
        """Whether there is room for another one; it is to be told to `leave` then."""
        if len(self._connections) >= self._most:
            self.counts["refused: too many connections"] += 1
            return False
        self._connections.add(connection)
        return True

    def leave(self, connection: Connected) -> None:
        """It is gone; again is harmless."""
        self._connections.discard(connection)

    def expel(self, login: str) -> None:
        """Nobody can log in with it any more, and who has is heard no longer."""
        self.accounts.remove(login)
        for connection in tuple(self._connections):
            if connection.login == login:
                connection.close()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def next_id(self) -> str:
        """For a message, unique in this broker's life."""
        self._number += 1
        return str(self._number)

    def publish(self, destination: str, headers: Mapping[str, str], body: bytes) -> None:
        """To all who have subscribed, or into the queue. Raises BusError if that is full."""
        if destination.startswith(QUEUE):
            self._enqueue(Queued(destination, headers, body))
            return
        shared: dict[str, bytes] = {}
        told = {**headers, "destination": destination, "message-id": self.next_id()}
        for subscriber in self.topics.match(destination):
            version = subscriber.version
            if version not in shared:
                shared[version] = message_rest(version, told, body)
            subscriber.deliver(shared[version])

    def _enqueue(self, message: Queued) -> None:
        queue = self.queue(message.destination)
        limits = self.limits
        full = len(queue.messages) >= limits.queued
        if full or queue.size + message.size > limits.queued_bytes:
            self.counts["refused: queue full"] += 1
            raise BusError(f"{message.destination} is full")
        queue.put(message)
        self.tidy(message.destination)

    def queue(self, destination: str) -> Queue:
        """It is made where there is none. Raises BusError if there are too many."""
        queue = self._queues.get(destination)
        if queue is None:
            if len(self._queues) >= self.limits.queues:
                raise BusError("there are too many queues")
            queue = self._queues[destination] = Queue()
        return queue

    def tidy(self, destination: str) -> None:
        """Forgets the queue if nobody uses it."""
        queue = self._queues.get(destination)
        if queue is not None and queue.is_unused:
            del self._queues[destination]


def message_rest(version: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A MESSAGE from its second line on; more headers may be put before it."""
    length = b"content-length:%d\n\n" % len(body)
    return b"".join((encode_lines(version, headers), length, body, b"\0"))
