"""Servers at UNIX sockets; import it through `local_servers`."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from boincvm.host.sockets import private_listener

assert sys.platform != "win32"


async def serve_locally(
    path: Path, factory: Callable[[], asyncio.BaseProtocol], *, backlog: int = 100
) -> "UnixServer":
    """Serve this user's processes at `path`, each by a protocol of `factory`. Raises OSError."""
    listener = private_listener(path)
    try:
        server = await asyncio.get_running_loop().create_server(
            factory, sock=listener, backlog=backlog
        )
    except BaseException:
        listener.close()
        raise
    return UnixServer(path, server)


class UnixServer:
    """A server at a UNIX socket."""

    def __init__(self, path: Path, server: asyncio.Server) -> None:
        self._path = path
        self._server: asyncio.Server | None = server
        self._closed = server

    def close(self) -> None:
        """Accept no more, and remove the socket. Calling it again is harmless."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)

    async def wait_closed(self) -> None:
        """Wait until it accepts no more."""
        await self._closed.wait_closed()
