"""Sockets on Windows, where Python has no UNIX sockets; import it through `sockets`."""

import socket
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from boincvm.host.not_yet import not_yet

assert sys.platform == "win32"

from boincvm.host.local_pipes_windows import connect as connect_by_pipe

_WHAT = "connections by a path"


def short_path(path: Path) -> AbstractContextManager[str]:
    """Yield another name for `path` that is short enough for a socket."""
    raise not_yet(_WHAT)


def private_listener(path: Path) -> socket.socket:
    """Bind a socket at `path` for this user alone."""
    raise not_yet(_WHAT)


def connect_blocking(path: Path, timeout: float | None) -> socket.socket:
    """Connect to the server at `path`; `timeout` in seconds holds for each blocking call.

    Raises OSError.
    """
    connection = connect_by_pipe(path, timeout)
    connection.settimeout(timeout)
    return connection


async def connect(path: Path) -> socket.socket:
    """Connect to the server at `path` in the running event loop. Raises OSError."""
    import asyncio

    connection = await asyncio.to_thread(connect_by_pipe, path)
    connection.setblocking(False)
    return connection


def peer_is_this_user(peer: socket.socket) -> bool:
    """Return True: nobody else can open the pipe by which the connection was made."""
    return True


def peer_process(peer: socket.socket) -> int | None:
    """Return the id of the process at the other end."""
    raise not_yet(_WHAT)


def take_free_port_only(listener: socket.socket) -> None:
    """Have `bind` fail for a port that another process has; nobody can take it from us then.

    SO_REUSEADDR would let both have it. Raises OSError.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)


def keep_alive(connection: socket.socket) -> None:
    """Have a TCP peer whose host has vanished noticed after a minute. Raises OSError."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Python lacks the options that an older Windows does not have; its longer defaults apply.
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
