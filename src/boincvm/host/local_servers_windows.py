"""Servers at named pipes; import it through `local_servers`."""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from boincvm.host.atomic_files import write_atomically
from boincvm.host.renames import remove

assert sys.platform == "win32"

from boincvm.host.local_pipes_windows import PipeServer


async def serve_locally(
    path: Path, factory: Callable[[], asyncio.BaseProtocol], *, backlog: int = 100
) -> "LocalPipeServer":
    """Serve this user's processes at `path`, each by a protocol of `factory`. Raises OSError."""
    return LocalPipeServer(path, factory)


class LocalPipeServer:
    """A server at a named pipe, whose name is in a file."""

    def __init__(self, path: Path, factory: Callable[[], asyncio.BaseProtocol]) -> None:
        """Begin to serve. Raises OSError."""
        self._path = path
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._starting: set[asyncio.Task[object]] = set()
        self._pipe = PipeServer(self._accept)
        try:
            write_atomically(path, f"{self._pipe.name}\n")
        except BaseException:
            self._pipe.close()
            raise

    def _accept(self, connection: socket.socket) -> None:
        try:
            self._loop.call_soon_threadsafe(self._start, connection)
        except RuntimeError:  # the loop has ended meanwhile
            connection.close()

    def _start(self, connection: socket.socket) -> None:
        if self._is_closed:
            connection.close()
            return
        connection.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._factory, connection)
        )
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    def close(self) -> None:
        """Accept no more, and remove the file. Calling it again is harmless."""
        if not self._is_closed:
            self._is_closed = True
            self._pipe.close()
            remove(self._path)

    async def wait_closed(self) -> None:
        """Wait for connections that are being made."""
        await asyncio.gather(*self._starting, return_exceptions=True)
