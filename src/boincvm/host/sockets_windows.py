"""Sockets on Windows, where Python has no UNIX sockets; import it through `sockets`."""

import socket
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from boincvm.host.not_yet import not_yet

assert sys.platform == "win32"

_WHAT = "connections by a path"


def short_path(path: Path) -> AbstractContextManager[str]:
    """Yield another name for `path` that is short enough for a socket."""
    raise not_yet(_WHAT)


def private_listener(path: Path) -> socket.socket:
    """Bind a socket at `path` for this user alone."""
    raise not_yet(_WHAT)


def connect_blocking(path: Path, timeout: float | None) -> socket.socket:
    """Connect to the socket at `path`."""
    raise not_yet(_WHAT)


async def connect(path: Path) -> socket.socket:
    """Connect to the socket at `path` in the running event loop."""
    raise not_yet(_WHAT)


def peer_is_this_user(peer: socket.socket) -> bool:
    """Tell whether the process at the other end is this user's."""
    raise not_yet(_WHAT)


def peer_process(peer: socket.socket) -> int | None:
    """Return the id of the process at the other end."""
    raise not_yet(_WHAT)


def keep_alive(connection: socket.socket) -> None:
    """Have a TCP peer whose host has vanished noticed after a minute. Raises OSError."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Python lacks the options that an older Windows does not have; its longer defaults apply.
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
