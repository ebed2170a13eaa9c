"""Servers at a path, for this user's processes: a UNIX socket, or on Windows a named pipe.

The client's side is `connect` and `connect_blocking` of sockets.py.
"""

import sys
from typing import Protocol

if sys.platform == "win32":
    from boincvm.host.local_servers_windows import serve_locally
else:
    from boincvm.host.local_servers_posix import serve_locally

__all__ = ["LocalServer", "serve_locally"]


class LocalServer(Protocol):
    """A server that accepts connections until it is closed."""

    def close(self) -> None:
        """Accept no more, and remove what is at the path. Calling it again is harmless."""

    async def wait_closed(self) -> None:
        """Wait until it accepts no more."""
