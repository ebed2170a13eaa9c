"""The end of a child's output on Linux and macOS: a socket; import it through `child_output`."""

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio  # a start of a machine imports it later

assert sys.platform != "win32"

TAIL_SIZE = 64 << 10
"""Bytes that are kept, the last ones that were read."""
MOST_UNREAD = 300
"""Messages of up to 512 bytes that are kept while nobody reads."""
_BUFFER = 208 << 10
"""Bytes of the socket: as much as Linux allows unless it was configured otherwise.

Linux takes twice as many, and counts a message of up to 512 bytes as 1280.
"""


class ChildOutput:
    """What a child writes that is started with `inherited`: it is kept in memory.

    Whatever the child writes, it takes no room on the disk. The child never waits for us: while
    nobody reads, the first MOST_UNREAD messages are kept, and newer ones are lost once the socket
    is full.
    """

    def __init__(self, path: Path) -> None:
        """Make the socket; `path` is where it is kept on systems that need a file. Raises OSError.

        It needs no event loop; what comes before `watch` waits in the socket.
        """
        self._ours, self._its = socket.socketpair()
        # Linux goes by the sender's size, macOS by both.
        self._its.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._ours.setblocking(False)
        self._its.setblocking(False)  # at the child's end, too: it has the same description
        self._tail = bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def inherited(self) -> int:
        """The descriptor that the child gets as its standard error."""
        return self._its.fileno()

    def started(self) -> None:
        """Take note that the child has been started."""
        self._its.close()

    def watch(self) -> None:
        """Read from now on whenever the running event loop finds something to read."""
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, self._read)

    def _read(self) -> bool:
        """Read what is there; return False if there was nothing."""
        if self._ours.fileno() < 0:
            return False
        try:
            data = self._ours.recv(TAIL_SIZE)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        self._tail += data
        del self._tail[:-TAIL_SIZE]
        if not data:
            self._stop_watching()
        return bool(data)

    def tail(self) -> bytes:
        """Return the last bytes that it has written."""
        for _ in range(16):  # a child that still runs may write faster than we read
            if not self._read():
                break
        return bytes(self._tail)

    def _stop_watching(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._ours)
            self._loop = None

    def close(self) -> None:
        """Stop reading; what has been read stays. Idempotent."""
        self._stop_watching()
        self._ours.close()
        self._its.close()
