"""The host's end of the guest link: a stream of bytes each way, whatever carries them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio  # which a run imports after its machine has been started

    P = TypeVar("P", bound="asyncio.Protocol")


class Channel(Protocol):
    """What `Machine.start` returns; whoever gets it owns it.

    Nobody may rely on being told by it that the guest has gone, nor the guest that the host has: a
    serial line does not tell. `Machine.ended` does.
    """

    async def connect(self, factory: Callable[[], P]) -> P:
        """Hand the streams over to the protocol that `factory` makes, once, as an event loop's
        `create_connection` does: its `connection_made` is given an `asyncio.Transport`."""

    def close(self) -> None:
        """Close a channel that was not connected; again is harmless."""


class SocketChannel:
    """A channel that is one connected stream socket, and tells a hang-up."""

    def __init__(self, stream: socket.socket) -> None:
        stream.setblocking(False)
        self._stream = stream

    async def connect(self, factory: Callable[[], P]) -> P:
        import asyncio

        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(factory, sock=self._stream)
        return protocol

    def close(self) -> None:
        self._stream.close()
