"""The guest link over two serial lines of a machine, with a window.

The kernel's driver of a serial line has room for 4 KiB that the guest has not read; a line that
gets more can stop for good. So at most WINDOW bytes are on the way: on a second line the guest's
agent tells how many it has read, each time in two bytes, little-endian (guest/boincvm_agent/
port.py). What the guest sends needs no window: its writes wait for us.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import TypeVar

P = TypeVar("P", bound=asyncio.Protocol)

WINDOW = 2000
"""Bytes that may be in transit to the guest."""
_LINES = 2
_HIGH, _LOW = 64 << 10, 16 << 10
"""Bytes waiting to be sent above which the protocol is paused, and below which it is resumed."""


class SerialChannel:
    """A channel over our ends of both lines. Neither tells the guest that we have hung up."""

    def __init__(self, line: socket.socket, receipts: socket.socket) -> None:
        for stream in (line, receipts):
            stream.setblocking(False)
        self._line = line
        self._receipts = receipts
        self._transport: SerialTransport | None = None

    async def connect(self, factory: Callable[[], P]) -> P:
        """Implement `Channel.connect`."""
        protocol = factory()
        self._transport = SerialTransport(protocol)
        await self._add_ends(self._transport)
        return protocol

    async def _add_ends(self, transport: "SerialTransport") -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: _Receipts(transport), sock=self._receipts)
        await loop.create_connection(lambda: _Line(transport), sock=self._line)

    def hold(self) -> None:
        """Send nothing, and let both lines end without an end of the link, until `replace`.

        The guest is quiesced then, so that nothing is in transit.
        """
        if self._transport is not None:
            self._transport.hold()

    def unhold(self) -> None:
        """Go on over the same lines after `hold`; the link ends if one of them has ended."""
        if self._transport is not None:
            self._transport.unhold()

    async def replace(self, line: socket.socket, receipts: socket.socket) -> None:
        """Go on over other lines after `hold`."""
        for stream in (line, receipts):
            stream.setblocking(False)
        if self._transport is None:
            self.close()
        else:
            self._transport.drop_lines()
        self._line, self._receipts = line, receipts
        if self._transport is not None:
            await self._add_ends(self._transport)

    def close(self) -> None:
        """Close a channel that was not connected. Idempotent."""
        self._line.close()
        self._receipts.close()


class SerialTransport(asyncio.Transport):
    """The protocol's transport, which holds back what does not fit into the window."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._ends: list[asyncio.Transport] = []
        self._line: asyncio.Transport | None = None
        self._waiting = bytearray()
        self._on_the_way = 0
        self._is_paused = False
        self._is_closing = False
        self._was_connected = False
        self._is_held = False

    def add_end(self, end: asyncio.Transport, *, is_line: bool) -> None:
        """Add the transport of one of the two lines."""
        if self._is_closing:  # while there were none
            end.abort()
            return
        self._ends.append(end)
        if not is_line:
            return
        self._line = end
        self._is_held = False
        if not self._was_connected:
            self._was_connected = True
            self._protocol.connection_made(self)
        self._send()

    def hold(self) -> None:
        """Implement `SerialChannel.hold`."""
        self._is_held = True

    def unhold(self) -> None:
        """Implement `SerialChannel.unhold`."""
        self._is_held = False
        if self._line is None or len(self._ends) < _LINES:
            self.abort()
            if self._line is None and self._was_connected:  # so that it does not end any more
                asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)
        self._send()

    def drop_lines(self) -> None:
        """Close both lines while they are held."""
        ends, self._ends = self._ends, []
        self._line = None
        self._on_the_way = 0
        for end in ends:
            end.abort()

    def handle_end(self, end: asyncio.BaseTransport | None, error: Exception | None) -> None:
        """Note that a line has ended, and with it the link, unless the lines are held."""
        if end not in self._ends:
            return
        is_line = end is self._line
        if self._is_held:
            self._ends = [other for other in self._ends if other is not end]
            self._line = None if is_line else self._line
            return
        self.abort()
        if is_line:
            self._protocol.connection_lost(error)

    def handle_data(self, data: bytes) -> None:
        """Give the protocol what the guest has sent."""
        self._protocol.data_received(data)

    def handle_receipt(self, count: int) -> None:
        """Note that the guest says it has read `count` bytes; a false receipt harms only itself."""
        self._on_the_way = max(self._on_the_way - count, 0)
        self._send()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing:
            return
        self._waiting += data
        self._send()
        if len(self._waiting) > _HIGH and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_writing()

    def _send(self) -> None:
        room = 0 if self._is_held else WINDOW - self._on_the_way
        if room > 0 and self._waiting and self._line is not None and not self._is_closing:
            part = bytes(self._waiting[:room])
            del self._waiting[:room]
            self._on_the_way += len(part)
            self._line.write(part)
        if self._is_paused and len(self._waiting) < _LOW:
            self._is_paused = False
            self._protocol.resume_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self.abort()  # pending data cannot be flushed without the guest

    def abort(self) -> None:
        self._is_closing = True
        self._waiting.clear()
        for end in self._ends:
            end.abort()


class _Line(asyncio.Protocol):
    """The line that carries the link's own bytes."""

    def __init__(self, transport: SerialTransport) -> None:
        self._transport = transport
        self._end: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._end = transport
        if isinstance(transport, asyncio.Transport):
            self._transport.add_end(transport, is_line=True)

    def data_received(self, data: bytes) -> None:
        self._transport.handle_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.handle_end(self._end, exc)


class _Receipts(asyncio.Protocol):
    """The line on which the guest reports how much it has read."""

    def __init__(self, transport: SerialTransport) -> None:
        self._transport = transport
        self._end: asyncio.BaseTransport | None = None
        self._half = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._end = transport
        if isinstance(transport, asyncio.Transport):
            self._transport.add_end(transport, is_line=False)

    def data_received(self, data: bytes) -> None:
        data = self._half + data
        whole = len(data) & ~1
        self._half = data[whole:]
        self._transport.handle_receipt(
            sum(int.from_bytes(data[at : at + 2], "little") for at in range(0, whole, 2))
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.handle_end(self._end, exc)
