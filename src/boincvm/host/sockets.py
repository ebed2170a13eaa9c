"""UNIX sockets for this user's processes, and keep-alive for TCP peers that vanish silently."""

import sys

if sys.platform == "win32":
    from boincvm.host.sockets_windows import (
        connect,
        connect_blocking,
        keep_alive,
        peer_is_this_user,
        peer_process,
        private_listener,
        short_path,
        take_free_port_only,
    )
else:
    from boincvm.host.sockets_posix import (
        connect,
        connect_blocking,
        keep_alive,
        peer_is_this_user,
        peer_process,
        private_listener,
        short_path,
        take_free_port_only,
    )

__all__ = [
    "connect",
    "connect_blocking",
    "peer_is_this_user",
    "peer_process",
    "keep_alive",
    "private_listener",
    "short_path",
    "take_free_port_only",
]
