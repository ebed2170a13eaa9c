"""An embedded STOMP broker with topics, wildcards, queues and accounts; nothing is kept on disk.

Peers are not trusted: their accounts limit what they may send and receive, every size is capped,
peers that do not read are dropped or made to wait, and peers that flood are read more slowly.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from boincvm.bus.access import Accounts
from boincvm.bus.broker_connection import BrokerConnection
from boincvm.bus.queues import Queue, Queued
from boincvm.bus.stomp import MAXIMUM_BODY
from boincvm.bus.topics import QUEUE, Subscriptions
from boincvm.bus.versions import message_rest
from boincvm.errors import BusError, host_error
from boincvm.host.local_servers import LocalServer, serve_locally
from boincvm.host.resources import most_open_files

_SPARE_DESCRIPTORS = 64
_TLS_BUFFER = 16384
"""Bytes; with asyncio's default each connection takes 280 KiB."""


class BrokerLimits(NamedTuple):
    """Limits of a broker; most of them apply to one connection."""

    connections: int = 20_000
    """Maximum number of connections; the process's limit of open files applies as well."""
    body: int = MAXIMUM_BODY
    """Bytes in one message."""
    subscriptions: int = 64
    """Per connection."""
    unacknowledged: int = 256
    """Per connection."""
    transactions: int = 16
    """Per connection."""
    staged: int = 256
    """Frames per transaction."""
    waiting: int = 4 << 20
    """Bytes buffered for a connection that does not read; a topic's subscriber is then dropped."""
    login: float = 10.0
    """Seconds within which a connection must log in."""
    heart_beat: int = 10_000
    """Milliseconds between heart-beats, offered and requested."""
    queued: int = 10_000
    """Messages in one queue."""
    queued_bytes: int = 64 << 20
    """Bytes in one queue."""
    queues: int = 10_000
    """Number of queues."""


class TopicSubscriber(Protocol):
    """A subscription to a topic."""

    version: str

    def deliver(self, shared: bytes) -> None:
        """Deliver a message.

        `shared` is a MESSAGE in the subscriber's version without its first line and its header
        `subscription`.
        """


class Connected(Protocol):
    """What the broker needs to know about a connection; `login` is set once it has logged in."""

    @property
    def login(self) -> str | None: ...

    def close(self) -> None: ...


class Broker:
    """A broker for any number of listeners."""

    def __init__(self, accounts: Accounts, limits: BrokerLimits | None = None) -> None:
        self.accounts = accounts
        self.limits = limits or BrokerLimits()
        self.topics: Subscriptions[TopicSubscriber] = Subscriptions()
        self.counts: Counter[str] = Counter()
        """What was refused, dropped and forwarded since the start, by name."""
        self._queues: dict[str, Queue] = {}
        self._connections: set[Connected] = set()
        self._servers: list[asyncio.Server | LocalServer] = []
        self._number = 0
        descriptors = most_open_files() - _SPARE_DESCRIPTORS
        self._most = min(self.limits.connections, max(descriptors, 1))

    async def listen_tcp(
        self, host: str, port: int, security: ssl.SSLContext | None = None
    ) -> tuple[str, int]:
        """Listen for TCP connections; return the address, with the port chosen for port 0.

        Raises BusError.
        """
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
        """Listen for connections from this user's processes. Raises BusError."""
        try:
            server = await serve_locally(path, lambda: BrokerConnection(self))
        except OSError as error:
            raise host_error(
                f"the broker cannot listen on {path.name}",
                error,
                BusError,
                hint="the directory must exist and belong to this user",
            ) from error
        self._servers.append(server)

    async def close(self) -> None:
        """Close all connections and accept no more."""
        for server in self._servers:
            server.close()
        for connection in tuple(self._connections):
            connection.close()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    # Called by connections.

    def admit(self, connection: Connected) -> bool:
        """Register a connection and return True, or return False if there is no room.

        After True, call `leave` when the connection ends.
        """
        if len(self._connections) >= self._most:
            self.counts["refused: too many connections"] += 1
            return False
        self._connections.add(connection)
        return True

    def leave(self, connection: Connected) -> None:
        """Unregister a connection; calling it again is harmless."""
        self._connections.discard(connection)

    def expel(self, login: str) -> None:
        """Remove the account and disconnect everyone logged in with it."""
        self.accounts.remove(login)
        for connection in tuple(self._connections):
            if connection.login == login:
                connection.close()

    @property
    def connections(self) -> int:
        """Return the number of connections."""
        return len(self._connections)

    def next_id(self) -> str:
        """Return a message id that is unique within this broker's lifetime."""
        self._number += 1
        return str(self._number)

    def publish(self, destination: str, headers: Mapping[str, str], body: bytes) -> None:
        """Send to all subscribers of a topic, or put into a queue.

        Raises BusError if the queue is full.
        """
        if destination.startswith(QUEUE):
            self._enqueue(Queued(destination, headers, body))
            return
        shared: dict[str, bytes] = {}
        sent = {**headers, "destination": destination, "message-id": self.next_id()}
        for subscriber in self.topics.match(destination):
            version = subscriber.version
            if version not in shared:
                shared[version] = message_rest(version, sent, body)
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
        """Return the queue, creating it if needed. Raises BusError if there are too many."""
        queue = self._queues.get(destination)
        if queue is None:
            if len(self._queues) >= self.limits.queues:
                raise BusError("there are too many queues")
            queue = self._queues[destination] = Queue()
        return queue

    def tidy(self, destination: str) -> None:
        """Delete the queue if it is unused."""
        queue = self._queues.get(destination)
        if queue is not None and queue.is_unused:
            del self._queues[destination]
