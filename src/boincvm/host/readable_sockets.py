"""Waiting in the event loop until a socket can be read, without reading it."""

import sys

if sys.platform == "win32":
    from boincvm.host.readable_sockets_windows import ReadableSocket
else:
    from boincvm.host.readable_sockets_posix import ReadableSocket

__all__ = ["ReadableSocket"]
