"""Sockets to a child on Linux and macOS: it inherits one of a pair.

Import it through `child_sockets`.
"""

import socket
import sys

from boincvm.host.processes import ChildProcess

assert sys.platform != "win32"


class ChildSocket:
    """One connection to a child, which is to be started with `descriptors`."""

    def __init__(self) -> None:
        """Make the pair. Raises OSError."""
        self._ours, self._its = socket.socketpair()
        self._is_taken = False
        self.option = f"fd={self._its.fileno()}"
        """How QEMU's command line names the child's end."""
        self.descriptors = (self._its.fileno(),)

    def connect(self, child: ChildProcess) -> socket.socket:
        """Return our end, for the caller to own, once the child runs."""
        self._is_taken = True
        self._its.close()
        return self._ours

    def close(self) -> None:
        """Close what nobody has taken, and the child's end. Idempotent."""
        self._its.close()
        if not self._is_taken:
            self._ours.close()
