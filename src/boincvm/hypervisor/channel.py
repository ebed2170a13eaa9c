"""The host's end of the guest link: a byte stream in each direction, over any transport."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio  # a run imports it after starting its machine

    P = TypeVar("P", bound="asyncio.Protocol")


class Channel(Protocol):
    """What `Machine.start` returns; the caller owns it.

    Nobody may rely on it to report that the guest has gone, nor the guest that the host has: a
    serial line does not tell. `Machine.ended` does.
    """

    async def connect(self, factory: Callable[[], P]) -> P:
        """Connect the streams to the protocol that `factory` makes; call this once.

        It works like an event loop's `create_connection`: the protocol's `connection_made` is given
        an `asyncio.Transport`.
        """

    def close(self) -> None:
        """Close a channel that was not connected. Idempotent."""


class SocketChannel:
    """A channel over one connected stream socket, which reports a hang-up."""

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
