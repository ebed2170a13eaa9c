"""Sockets on Linux and macOS; `sockets` is the face."""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

assert sys.platform != "win32"

if sys.platform == "darwin":
    _IDLE = socket.TCP_KEEPALIVE
else:
    _IDLE = socket.TCP_KEEPIDLE
_KEEP_ALIVE = ((_IDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Another name for `path`, short enough for a socket wherever it lies; valid in the block.

    The system takes no more than some 100 bytes of one (unix(7)). Raises OSError where its
    directory is not there, or, on macOS, where it is longer.
    """
    if sys.platform == "linux":
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{directory}/{path.name}"
        finally:
            os.close(directory)
    else:
        yield str(path)


def private_listener(path: Path) -> socket.socket:
    """A UNIX socket there, bound and not yet listening, for this user alone, in place of what was
    there. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        with short_path(path) as short:
            listener.bind(short)
        path.chmod(0o600)
    except BaseException:
        listener.close()
        raise
    return listener


def connect_blocking(path: Path, timeout: float | None) -> socket.socket:
    """A connection to the UNIX socket at `path`; `timeout`: seconds of all its waits. Raises
    OSError."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        with short_path(path) as short:
            connection.connect(short)
    except BaseException:
        connection.close()
        raise
    return connection


async def connect(path: Path) -> socket.socket:
    """A connection to the UNIX socket at `path`, for the running event loop. Raises OSError."""
    import asyncio

    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)
        with short_path(path) as short:
            await asyncio.get_running_loop().sock_connect(connection, short)
    except BaseException:
        connection.close()
        raise
    return connection


def peer_is_this_user(peer: socket.socket) -> bool:
    """Whether the process at the other end of a UNIX socket is this user's, or root's."""
    if sys.platform == "linux":
        told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, user, _ = struct.unpack("3i", told)
        return user in (0, os.geteuid())
    else:
        from boincvm.host.not_yet import not_yet

        raise not_yet("who is at the other end of a UNIX socket")


def keep_alive(connection: socket.socket) -> None:
    """Have a TCP peer whose host has gone be missed after a minute. Raises OSError."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
