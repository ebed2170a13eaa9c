"""File system entries that are not regular files."""

import os
import socket
import stat
from pathlib import Path

from boincvm.host.sockets import short_path

_ZERO = os.makedev(1, 5)
"""/dev/zero: reading all of it never ends."""

KINDS = ("fifo", "directory", "socket", "loop", *(("device",) if os.geteuid() == 0 else ()))
"""Kinds of entries; only root can make a device."""


def make_node(path: Path, kind: str) -> None:
    """Put an entry that is not a file at `path`, in place of whatever is there."""
    path.unlink(missing_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener, short_path(path) as short:
                listener.bind(short)
        case "loop":
            path.symlink_to(path.name)
        case "device":
            os.mknod(path, 0o600 | stat.S_IFCHR, _ZERO)
