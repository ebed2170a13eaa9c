"""Sockets that connect this process with a child, and with nobody else."""

import sys

if sys.platform == "win32":
    from boincvm.host.child_sockets_windows import ChildSocket
else:
    from boincvm.host.child_sockets_posix import ChildSocket

__all__ = ["ChildSocket"]
