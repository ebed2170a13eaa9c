"""Sockets that a hypervisor connects a machine's lines to."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from boincvm.errors import HypervisorError
from boincvm.host.sockets import private_listener

_LONGEST_PATH = 107
"""Bytes of a socket's path: sun_path of unix(7)."""


def check_socket_path(path: Path) -> None:
    """Raise HypervisorError if a hypervisor cannot connect to a socket at `path`."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise HypervisorError(
            f"the path of {path.parent} is too long for sockets",
            hint="set XDG_CACHE_HOME or BOINCVM_HOME to a directory with a shorter path",
        )


def listen_at(path: Path) -> socket.socket:
    """Return a listening socket at `path` for this user alone. Raises OSError."""
    listener = private_listener(path)
    listener.listen(1)
    listener.setblocking(False)
    return listener


async def accept_all(listeners: Sequence[socket.socket], limit: float) -> list[socket.socket]:
    """Return a connection to each listener.

    Raises HypervisorError if one has none within `limit` seconds.
    """
    async with accepting(listeners) as accepted:
        return await accepted(limit)


@asynccontextmanager
async def accepting(
    listeners: Sequence[socket.socket],
    on_connection: Callable[[socket.socket], None] = lambda _: None,
) -> AsyncIterator[Callable[[float], Awaitable[list[socket.socket]]]]:
    """Accept a connection to each listener while the block runs, and tell of it at once.

    Yields a function that returns them all; it raises HypervisorError if one is not there within
    that many seconds. If the block fails they are closed.
    """
    accepted: list[socket.socket] = []

    async def accept() -> None:
        loop = asyncio.get_running_loop()
        for listener in listeners:
            connection, _ = await loop.sock_accept(listener)
            accepted.append(connection)
            on_connection(connection)

    async def all_within(limit: float) -> list[socket.socket]:
        try:
            async with asyncio.timeout(limit):
                await task
        except TimeoutError:
            raise HypervisorError("the hypervisor did not connect the machine's lines") from None
        return accepted

    task = asyncio.ensure_future(accept())
    try:
        yield all_within
    except BaseException:
        task.cancel()
        await asyncio.wait((task,))
        for each in accepted:
            each.close()
        raise
