"""A client's connection to a STOMP broker."""

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from boincvm.bus.heart_beats import HeartBeats
from boincvm.bus.stomp import (
    MAXIMUM_BODY,
    MAXIMUM_HEADERS,
    Frame,
    Parser,
    StompError,
    encode,
)
from boincvm.errors import BusError

MOST_WAITING = 16 << 20
"""Bytes buffered for a broker that does not read."""
_LARGEST_HEAD = 1 << 20
_GOODBYE = "goodbye"


class ClientConnection(asyncio.Protocol):
    """One connection, from the login until it is lost."""

    def __init__(self, handle: Callable[[Frame], None], heart_beat: int) -> None:
        """Create one that passes each frame after the login to `handle`.

        `heart_beat` is in milliseconds.
        """
        loop = asyncio.get_running_loop()
        self._handle = handle
        self._heart_beat = heart_beat
        # A broker forwards the largest head that it accepts, plus headers of its own and escapes
        # that the sender need not have used; RabbitMQ accepts any header, even an invalid one.
        self._parser = Parser(MAXIMUM_BODY, _LARGEST_HEAD, 2 * MAXIMUM_HEADERS)
        self._parser.passes_over_headers = True
        self._parser.has_escapes = False  # ActiveMQ refuses a login by STOMP 1.0
        self._transport: asyncio.Transport | None = None
        self._beats: HeartBeats | None = None
        self._welcome: asyncio.Future[Frame] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        """Done once the connection is lost."""
        self.fault: BaseException | None = None
        """What `handle` raised."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        if self._beats is not None:
            self._beats.close()
        if not self._welcome.done():
            self._welcome.set_exception(ConnectionError("it closed the connection"))
            self._welcome.exception()  # nobody may be waiting for it any more
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._beats is not None:
            self._beats.received()
        try:
            for frame in self._parser.feed(data):
                if frame.headers.get("receipt-id") == _GOODBYE and self._transport is not None:
                    self._transport.close()  # some brokers leave closing to the client
                elif self._welcome.done():
                    self._handle(frame)
                else:
                    self._parser.has_escapes = True
                    self._welcome.set_result(frame)
        except StompError:
            self.abort()  # not a broker, or a broken one: a new connection may work
        except Exception as error:
            self.fault = error
            self.abort()

    async def log_in(self, host: str, login: str, passcode: str) -> None:
        """Log in. Raises BusError, OSError."""
        headers = {
            "accept-version": "1.2",
            "host": host,
            "heart-beat": f"{self._heart_beat},{self._heart_beat}",
            "login": login,
            "passcode": passcode,
        }
        if any("\n" in text or "\r" in text for text in headers.values()):
            raise BusError("a login and its passcode are one line each")
        self.send_frame("CONNECT", headers)
        welcome = await self._welcome
        if welcome.command != "CONNECTED":
            why = welcome.headers.get("message") or welcome.body[:200].decode("utf-8", "replace")
            raise BusError(
                f"the broker refused the login: {why}", hint="check the login and the passcode"
            )
        if welcome.headers.get("version") != "1.2":
            raise BusError("the broker does not speak STOMP 1.2")
        self._beats = HeartBeats.agreed(
            welcome.headers.get("heart-beat"), self._heart_beat, self._beat, self.abort
        )
        if self._beats is None:
            raise BusError("the broker's heart-beat header is invalid")

    def _beat(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"\n")

    @property
    def is_full(self) -> bool:
        """Return True if too much of what was sent is still unread by the broker."""
        return self._transport is not None and (
            self._transport.get_write_buffer_size() > MOST_WAITING
        )

    def send_frame(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a frame; does nothing if the connection is lost."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(command, dict(headers), body))

    async def disconnect(self, limit: float) -> None:
        """Disconnect; wait up to `limit` seconds for the broker's answer."""
        self.send_frame("DISCONNECT", {"receipt": _GOODBYE})
        try:
            async with asyncio.timeout(limit):
                await asyncio.shield(self.lost)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Drop the connection immediately."""
        if self._transport is not None:
            self._transport.abort()
