"""A client of any STOMP broker that reconnects by itself: `transport.Bus`."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from boincvm.bus.client_connection import ClientConnection
from boincvm.bus.dialects import EMBEDDED, Dialect
from boincvm.bus.stomp import Frame
from boincvm.bus.topics import is_destination, is_pattern
from boincvm.bus.transport import Message, Receiver
from boincvm.errors import BusError
from boincvm.host.sockets import connect

CONNECT_LIMIT = 10.0
LONGEST_WAIT = 30.0
FIRST_WAIT = 0.2
"""Seconds. The waits between attempts to connect grow, and a random part of each is used, so that
a thousand guests do not reconnect at the same moment."""
MOST_TRIES = 5
"""How often a message is sent if the broker or the link fails before acknowledging it."""
_PROTOCOL_HEADERS = frozenset(
    (
        "destination", "subscription", "message-id", "content-length", "ack", "redelivered",
        "receipt", "sender",
    )
)  # fmt: skip


class Address(NamedTuple):
    """A broker's address: the `path` of a UNIX socket, or host and port."""

    path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 61613
    security: ssl.SSLContext | None = None

    def __str__(self) -> str:
        return self.path.name if self.path is not None else f"{self.host} port {self.port}"


class _Request:
    """A frame that the broker must acknowledge."""

    __slots__ = ("answer", "body", "command", "headers", "tries")

    def __init__(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        self.command = command
        self.headers = headers
        self.body = body
        self.tries = 0
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class StompBus:
    """A connection to a STOMP broker, made by `open`."""

    def __init__(
        self, address: Address, login: str, passcode: str, dialect: Dialect, heart_beat: int
    ) -> None:
        self._address = address
        self._login = login
        self._passcode = passcode
        self._dialect = dialect
        self._heart_beat = heart_beat
        self._unsent = _PROTOCOL_HEADERS | dialect.adds
        self._connection: ClientConnection | None = None
        self._subscriptions: dict[str, tuple[str, Receiver]] = {}
        self._requests: dict[str, _Request] = {}
        self._number = 0
        self._complaint = ""
        self._why_away = ""
        self._is_up = asyncio.Event()
        self._reconnector: asyncio.Task[None] | None = None
        self._is_closed = False
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        """What a receiver raised; it ends the bus."""
        self.dropped = 0
        """Messages of `post` dropped for want of a connection, room or a valid destination."""
        self.foreign = 0
        """Messages with an invalid destination or invalid headers; other brokers forward those."""
        self.connections = 0
        """How often a connection was made."""
        self.on_connected: Callable[[], None] = lambda: None
        """Called each time a connection is ready for use."""
        self.on_trouble: Callable[[str], None] = lambda _why: None
        """Called with the reason when connecting again fails, or fails for another reason."""
        self.on_lost: Callable[[str], None] = lambda _why: None
        """Called with the reason each time the connection is lost."""
        self.on_back: Callable[[], None] = lambda: None
        """Called when there is a connection again."""

    @classmethod
    async def open(
        cls,
        address: Address,
        login: str,
        passcode: str,
        *,
        dialect: Dialect = EMBEDDED,
        heart_beat: int = 10_000,
    ) -> Self:
        """Return a connected bus; `heart_beat` is in milliseconds, both ways. Raises BusError."""
        bus = cls(address, login, passcode, dialect, heart_beat)
        connection = await bus._connect()
        bus._reconnector = asyncio.ensure_future(bus._keep_connected(connection))
        return bus

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    async def until_connected(self, within: float) -> None:
        """Wait for a connection. Raises BusError if there is none after `within` seconds."""
        try:
            async with asyncio.timeout(within):
                await self._is_up.wait()
        except TimeoutError:
            raise BusError(
                self._why_away,
                hint="is the broker running, or the controller that has invited this host? machines"
                " and programs run on meanwhile",
            ) from None

    async def _connect(self) -> ClientConnection:
        """Connect, log in and subscribe. Raises BusError."""
        connection = ClientConnection(self._handle, self._heart_beat)
        loop, address = asyncio.get_running_loop(), self._address
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                if address.path is not None:
                    peer = await connect(address.path)
                    await loop.create_connection(lambda: connection, sock=peer)
                else:
                    await loop.create_connection(
                        lambda: connection, address.host, address.port, ssl=address.security
                    )
                await connection.log_in(self._dialect.host, self._login, self._passcode)
        except BaseException as error:
            connection.abort()
            if not isinstance(error, OSError | TimeoutError | ssl.SSLError):
                raise
            raise BusError(
                f"the broker at {address} cannot be reached: {str(error) or 'it does not answer'}",
                hint="check that it is running, that address, port, login and passcode are right,"
                " and that both sides use TLS or neither does",
            ) from error
        self._connection = connection
        self._is_up.set()
        self.connections += 1
        self._send_unsent(connection)
        self.on_connected()
        return connection

    def _send_unsent(self, connection: ClientConnection) -> None:
        """Send what the broker does not know yet because it or the connection is new."""
        requested = {request.headers.get("id") for request in self._requests.values()}
        for name, (pattern, _) in self._subscriptions.items():
            if name not in requested:
                connection.send_frame(
                    "SUBSCRIBE", {"id": name, "destination": pattern, "ack": "auto"}
                )
        for receipt, request in list(self._requests.items()):
            self._send_request(connection, receipt, request)

    def _send_request(self, connection: ClientConnection, receipt: str, request: _Request) -> None:
        request.tries += 1
        if request.tries > MOST_TRIES:
            del self._requests[receipt]
            why = self._complaint or "without an answer"
            self._end(
                request,
                BusError(f"the connection to the broker was lost {MOST_TRIES} times: {why}"),
            )
            return
        connection.send_frame(
            request.command, {**request.headers, "receipt": receipt}, request.body
        )

    @staticmethod
    def _end(request: _Request, error: BusError | None) -> None:
        if request.answer.done():
            return
        if error is None:
            request.answer.set_result(None)
        else:
            request.answer.set_exception(error)

    async def _keep_connected(self, connection: ClientConnection) -> None:
        wait = FIRST_WAIT
        while not self._is_closed:
            await connection.lost
            self._connection = None
            self._is_up.clear()
            self._why_away = f"the broker at {self._address} has closed the connection"
            if connection.fault is not None:
                self._fail(connection.fault)
                return
            if not self._is_closed:
                self.on_lost(self._why_away)
            why = ""
            while not self._is_closed:
                await asyncio.sleep(wait * int.from_bytes(os.urandom(4)) / (1 << 32))
                try:
                    connection = await self._connect()
                except BusError as error:
                    wait = min(wait * 2, LONGEST_WAIT)  # callers that wait get an error in the end
                    if error.message != why:
                        why = self._why_away = error.message
                        self.on_trouble(why)
                else:
                    wait = FIRST_WAIT
                    self.on_back()
                    break

    def _fail(self, error: BaseException) -> None:
        """End the bus with a receiver's error, so that it does not go unnoticed."""
        if not self.failure.done():
            self.failure.set_result(error)
        self._is_closed = True
        self._give_up_requests()

    def _give_up_requests(self) -> None:
        requests, self._requests = self._requests, {}
        for request in requests.values():
            self._end(request, BusError("the bus was closed before the broker answered"))

    def _handle(self, frame: Frame) -> None:
        if frame.command == "RECEIPT":
            self._complaint = ""
            request = self._requests.pop(frame.headers.get("receipt-id", ""), None)
            if request is not None:
                self._end(request, None)
        elif frame.command == "ERROR":
            request = self._requests.pop(frame.headers.get("receipt-id", ""), None)
            why = frame.headers.get("message") or frame.body[:200].decode("utf-8", "replace")
            if request is not None:
                self._end(request, BusError(f"the broker refused the request: {why}"))
            elif self._connection is not None:
                # RabbitMQ does not say which frame this is about, and does not always close the
                # connection, as the standard demands: no one must wait for a receipt for ever.
                self._complaint = why
                self._connection.abort()
        elif frame.command == "MESSAGE":
            self._receive(frame.headers, frame.body)

    def _receive(self, headers: Mapping[str, str], body: bytes) -> None:
        if "subscription" not in headers:
            self.foreign += 1
            return
        found = self._subscriptions.get(headers["subscription"])
        if found is None:
            return  # it was in transit when the subscription ended
        sender = headers.get("sender", "") if self._dialect.names_sender else ""
        visible = {name: text for name, text in headers.items() if name not in self._unsent}
        destination = self._dialect.ours(headers.get("destination", ""))
        if not is_destination(destination):
            self.foreign += 1
            return
        found[1](Message(destination, visible, body, sender))

    async def _request(self, request: _Request) -> None:
        if self._is_closed:
            raise BusError("the bus is closed")
        self._number += 1
        receipt = f"r{self._number}"
        self._requests[receipt] = request
        try:
            if self._connection is not None:
                self._send_request(self._connection, receipt, request)
            await request.answer
        finally:
            self._requests.pop(receipt, None)

    # transport.Bus.

    def post(self, destination: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        connection = self._connection
        if connection is None or connection.is_full or not is_destination(destination):
            self.dropped += 1
        else:
            destination_header = self._dialect.destination(destination)
            connection.send_frame("SEND", {**headers, "destination": destination_header}, body)

    async def send(self, destination: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        # Other brokers accept anything as a destination, such as several separated by commas
        # or a pattern, which then nobody receives.
        if not is_destination(destination):
            raise BusError(f"{destination[:80]!r} is not a destination")
        destination_header = self._dialect.destination(destination)
        await self._request(_Request("SEND", {**headers, "destination": destination_header}, body))

    async def subscribe(self, pattern: str, receiver: Receiver) -> Callable[[], Awaitable[None]]:
        if not is_pattern(pattern):
            raise BusError(f"{pattern[:80]!r} is neither a destination nor a pattern of topics")
        self._number += 1
        name, theirs = f"s{self._number}", self._dialect.pattern(pattern)
        self._subscriptions[name] = (theirs, receiver)
        headers = {"id": name, "destination": theirs, "ack": "auto"}
        try:
            await self._request(_Request("SUBSCRIBE", headers))
        except BaseException:
            del self._subscriptions[name]
            raise

        async def end() -> None:
            if self._subscriptions.pop(name, None) is not None and self._connection is not None:
                self._connection.send_frame("UNSUBSCRIBE", {"id": name})

        return end

    async def close(self) -> None:
        self._is_closed = True
        self._subscriptions.clear()
        self._give_up_requests()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(CONNECT_LIMIT)
        if self._reconnector is not None:
            self._reconnector.cancel()
            await asyncio.gather(self._reconnector, return_exceptions=True)
