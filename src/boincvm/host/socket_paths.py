"""Paths of UNIX sockets: the system takes no more than some 100 bytes of one (unix(7))."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Another name for `path`, short enough for a socket wherever it lies; valid in the block.
    Raises OSError where its directory is not there."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def own_listener(path: Path) -> socket.socket:
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
