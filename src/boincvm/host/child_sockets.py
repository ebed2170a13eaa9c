"""Sockets that connect this process with a child, and with nobody else."""

import sys

HAS_INHERITED_SOCKETS = sys.platform != "win32"
"""Whether the child inherits its end, so that it is connected from its beginning."""

if sys.platform == "win32":
    from boincvm.host.child_sockets_windows import ChildSocket
else:
    from boincvm.host.child_sockets_posix import ChildSocket

__all__ = ["HAS_INHERITED_SOCKETS", "ChildSocket"]
