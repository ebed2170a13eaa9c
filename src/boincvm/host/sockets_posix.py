"""Sockets on Linux and macOS; import it through `sockets`."""

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
    """Yield another name for `path` that is short enough for a socket; it is valid in the block.

    The system takes only some 100 bytes (unix(7)). Raises OSError where its directory does not
    exist; on macOS a longer path makes the socket call fail.
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
    """Bind a UNIX socket at `path` for this user alone, replacing what was there.

    It does not listen yet. Raises OSError.
    """
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
    """Connect to the UNIX socket at `path`; `timeout` in seconds holds for each blocking call.

    Raises OSError.
    """
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
    """Connect to the UNIX socket at `path` in the running event loop. Raises OSError."""
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
    """Tell whether the process at the other end of a UNIX socket is this user's or root's."""
    if sys.platform == "linux":
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, user, _ = struct.unpack("3i", credentials)
        return user in (0, os.geteuid())
    else:
        from boincvm.host.not_yet import not_yet

        raise not_yet("who is at the other end of a UNIX socket")


def peer_process(peer: socket.socket) -> int | None:
    """Return the id of the process that listened when we connected to it by a UNIX socket.

    It may have gone since. Returns None if it is in a PID namespace that is not ours.
    """
    if sys.platform == "linux":
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        process, _, _ = struct.unpack("3i", credentials)
        return int(process) if process > 0 else None
    else:
        from boincvm.host.not_yet import not_yet

        raise not_yet("who is at the other end of a UNIX socket")


def take_free_port_only(listener: socket.socket) -> None:
    """Have `bind` fail for a port where another process listens, but not for one just given up.

    Raises OSError.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def keep_alive(connection: socket.socket) -> None:
    """Have a TCP peer whose host has vanished noticed after a minute. Raises OSError."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEP_ALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
