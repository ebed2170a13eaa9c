"""Waiting for a socket on Linux and macOS; import it through `readable_sockets`."""

import asyncio
import socket
import sys
from collections.abc import Callable

assert sys.platform != "win32"


class ReadableSocket:
    """Calls `handle` in the running event loop whenever the socket can be read, until `close`."""

    def __init__(self, channel: socket.socket, handle: Callable[[], object]) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel, handle)

    def close(self) -> None:
        """Stop waiting; the socket stays open."""
        self._loop.remove_reader(self._channel)
