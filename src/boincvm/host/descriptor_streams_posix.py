"""Reading and writing descriptors on Linux and macOS; import it through `descriptor_streams`."""

import asyncio
import os
import stat
import sys
from collections import deque
from collections.abc import Callable

from boincvm.host.channels import ATOMIC_WRITE, wait_until_writable

assert sys.platform != "win32"


class DescriptorWriter:
    """Writes what comes, in order; `flush` waits for the end of that."""

    def __init__(
        self,
        descriptor: int,
        written: Callable[[int], object],
        failed: Callable[[OSError], object],
    ) -> None:
        """Take the descriptor, which stays the caller's.

        `written` is called with each number of bytes that have been written, `failed` with an
        error, after which what has not been written is dropped.
        """
        self._descriptor = descriptor
        self._written = written
        self._failed = failed
        self._pending: deque[memoryview] = deque()
        self._empty = asyncio.Event()
        self._empty.set()
        # Anything but a file takes at least PIPE_BUF bytes without blocking once it is writable.
        self._waits = not stat.S_ISREG(os.fstat(descriptor).st_mode)

    def write(self, data: bytes) -> None:
        """Write `data`, now or later."""
        self._pending.append(memoryview(data))
        if self._empty.is_set():
            self._empty.clear()
            if self._waits and self._watch():
                return
            self._write_all()

    def _watch(self) -> bool:
        try:
            asyncio.get_running_loop().add_writer(self._descriptor, self._write_some)
        except PermissionError:  # epoll refuses devices such as /dev/null, which never block
            self._waits = False
        return self._waits

    def _write_some(self) -> None:
        while self._pending and wait_until_writable(self._descriptor, 0):
            if not self._write_piece(self._pending.popleft(), ATOMIC_WRITE):
                return
        if not self._pending:
            self._stop()

    def _write_all(self) -> None:
        while self._pending:
            data = self._pending.popleft()
            if not self._write_piece(data, len(data)):
                return
        self._stop()

    def _write_piece(self, data: memoryview, most: int) -> bool:
        try:
            written = os.write(self._descriptor, data[:most])
        except BlockingIOError:  # another process made it non-blocking and filled it meanwhile
            written = 0
        except OSError as error:
            self._pending.clear()
            self._stop()
            self._failed(error)
            return False
        if written < len(data):
            self._pending.appendleft(data[written:])
        self._written(written)
        return written > 0

    def _stop(self) -> None:
        if self._waits:
            asyncio.get_running_loop().remove_writer(self._descriptor)
        self._empty.set()

    async def flush(self) -> None:
        """Wait until nothing is left to write."""
        await self._empty.wait()


class DescriptorReader:
    """Tells when a descriptor can be read, and reads it."""

    def __init__(self, descriptor: int, handle: Callable[[], object]) -> None:
        """Take the descriptor, which stays the caller's; `handle` is called when it has data."""
        self._descriptor = descriptor
        self._handle = handle
        self._is_watching = False

    def start(self, most: int) -> bool:
        """Begin to wait for data, of which `most` bytes are wanted at first.

        Returns False if reading never blocks.
        """
        try:
            asyncio.get_running_loop().add_reader(self._descriptor, self._handle)
        except PermissionError:
            return False
        self._is_watching = True
        return True

    def read(self, most: int) -> bytes:
        """Return up to `most` bytes, none at the end. Raises OSError."""
        return os.read(self._descriptor, most)

    def stop(self) -> None:
        """Stop waiting. Idempotent."""
        if self._is_watching:
            self._is_watching = False
            asyncio.get_running_loop().remove_reader(self._descriptor)
