"""Reading and writing descriptors on Windows, where only a thread can wait for any kind of them.

Import it through `descriptor_streams`. The threads are daemons: one that waits for a console must
not keep the process from ending.
"""

import asyncio
import errno
import os
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable

assert sys.platform == "win32"

_PIECE = 1 << 16


class DescriptorWriter:
    """Writes what comes, in order; see descriptor_streams_posix.py."""

    def __init__(
        self,
        descriptor: int,
        written: Callable[[int], object],
        failed: Callable[[OSError], object],
    ) -> None:
        """Take the descriptor, which stays the caller's."""
        self._descriptor = descriptor
        self._written = written
        self._failed = failed
        self._pending: deque[memoryview] = deque()
        self._loop = asyncio.get_running_loop()
        self._empty = asyncio.Event()
        self._empty.set()
        self._waits = not stat.S_ISREG(os.fstat(descriptor).st_mode)

    def write(self, data: bytes) -> None:
        """Write `data`, now or later."""
        self._pending.append(memoryview(data))
        if not self._empty.is_set():
            return
        self._empty.clear()
        if self._waits:
            self._begin()
            return
        while self._pending:
            self._end(self._write_piece(self._pending[0]))

    def _begin(self) -> None:
        """Write the first piece in a thread."""
        data = self._pending[0]

        def work() -> None:
            result = self._write_piece(data)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._end, result)

        threading.Thread(target=work, daemon=True, name="writer").start()

    def _write_piece(self, data: memoryview) -> int | OSError:
        try:
            return os.write(self._descriptor, data[:_PIECE])
        except OSError as error:
            if error.errno == errno.EINVAL:  # so Microsoft's C library calls it
                return BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            return error

    def _end(self, result: int | OSError) -> None:
        """Take note of what has become of the first piece, and begin the next one."""
        if isinstance(result, OSError):
            self._pending.clear()
            self._empty.set()
            self._failed(result)
            return
        data = self._pending.popleft()
        if result < len(data):
            self._pending.appendleft(data[result:])
        if not self._pending:
            self._empty.set()
        elif self._waits:
            self._begin()
        self._written(result)

    async def flush(self) -> None:
        """Wait until nothing is left to write."""
        await self._empty.wait()


class DescriptorReader:
    """Reads a descriptor when told to, and tells when it has; see descriptor_streams_posix.py.

    What has been read but was not asked for any more is kept for the next `read`.
    """

    def __init__(self, descriptor: int, handle: Callable[[], object]) -> None:
        """Take the descriptor, which stays the caller's."""
        self._descriptor = descriptor
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._is_started = False
        self._is_reading = False
        self._result: bytes | OSError | None = None
        self._most = _PIECE

    def start(self, most: int) -> bool:
        """Begin to wait for data, of which at most `most` bytes are read."""
        self._is_started = True
        self._most = most
        self._wait()
        return True

    def _wait(self) -> None:
        if self._result is not None:
            self._loop.call_soon(self._notify)
        else:
            self._begin()

    def _begin(self) -> None:
        if self._is_reading:
            return
        self._is_reading = True

        def work() -> None:
            result: bytes | OSError
            try:
                result = os.read(self._descriptor, min(self._most, _PIECE))
            except OSError as error:
                result = error
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._complete, result)

        threading.Thread(target=work, daemon=True, name="reader").start()

    def _complete(self, result: bytes | OSError) -> None:
        self._is_reading = False
        self._result = result
        self._notify()

    def _notify(self) -> None:
        if not self._is_started or self._result is None:
            return
        self._handle()
        if self._is_started:
            self._wait()

    def read(self, most: int) -> bytes:
        """Return up to `most` bytes that have been read, none at the end. Raises OSError."""
        result = self._result
        if result is None:
            raise BlockingIOError
        if isinstance(result, OSError):
            raise result
        self._result = result[most:] or (None if result else b"")
        return result[:most]

    def stop(self) -> None:
        """Stop waiting. Idempotent."""
        self._is_started = False
