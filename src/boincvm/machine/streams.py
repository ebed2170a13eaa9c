"""The host's ends of a program's streams.

Nothing blocks, and nothing is read before it is needed.
"""

import asyncio
import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Protocol

from boincvm.errors import BoincvmError, HostDiskFullError, InputFileError, host_error
from boincvm.exit_codes import ExitCode
from boincvm.host.channels import ATOMIC_WRITE, wait_until_writable
from boincvm.host.terminal import is_background_job
from boincvm.job.model import MachineTask

READ_SIZE = 1 << 16
"""Most bytes of standard input to read at a time."""

Consumed = Callable[[int], None]
"""Called with the number of bytes that have been written, so that as many more may be sent."""
Fail = Callable[[BoincvmError], None]


class Sink(Protocol):
    """Takes one output stream of a program."""

    def write(self, data: bytes) -> None: ...

    async def flush(self) -> None:
        """Wait until everything is written."""


class DescriptorSink:
    """Writes to a descriptor that others may share, without making it non-blocking."""

    def __init__(self, descriptor: int, consumed: Consumed, fail: Fail) -> None:
        self._descriptor = descriptor
        self._consumed = consumed
        self._fail = fail
        self._pending: deque[memoryview] = deque()
        self._empty = asyncio.Event()
        self._empty.set()
        # Anything but a file takes at least PIPE_BUF bytes without blocking once it is writable.
        self._waits = not stat.S_ISREG(os.fstat(descriptor).st_mode)

    def write(self, data: bytes) -> None:
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
            self._fail(_output_error(error))
            return False
        if written < len(data):
            self._pending.appendleft(data[written:])
        self._consumed(written)
        return written > 0

    def _stop(self) -> None:
        if self._waits:
            asyncio.get_running_loop().remove_writer(self._descriptor)
        self._empty.set()

    async def flush(self) -> None:
        await self._empty.wait()


class MemorySink:
    """Keeps the first `capacity` bytes in `data`; `truncated` tells whether there were more."""

    def __init__(self, capacity: int, consumed: Consumed) -> None:
        self._capacity = capacity
        self.consumed = consumed
        self.data = bytearray()
        self.truncated = False

    def write(self, data: bytes) -> None:
        room = self._capacity - len(self.data)
        self.data += data[:room]
        self.truncated = self.truncated or len(data) > room
        self.consumed(len(data))

    async def flush(self) -> None:
        pass


def _output_error(error: OSError) -> BoincvmError:
    if error.errno == errno.EPIPE:
        return OutputClosedError("the reader of the output has gone")
    full = HostDiskFullError(
        "the host's disk is full: the output does not fit", hint="free some space and run again"
    )
    return host_error("the output cannot be written", error, full=full)


class OutputClosedError(BoincvmError):
    """The reader of our output has gone: we exit as if by SIGPIPE, as in `boincvm run … | head`."""

    exit_code = ExitCode.OUTPUT_CLOSED


_NO_FILES: Mapping[str, int] = MappingProxyType({})


class ProgramStreams:
    """The host's ends of one program's standard streams, while they are open."""

    def __init__(
        self, stdin: int | None, sinks: Mapping[str, Sink], files: Mapping[str, int] = _NO_FILES
    ) -> None:
        """Take `stdin`, a descriptor or None for no input, and `sinks` for "stdout" and "stderr".

        `files`: descriptors of the outputs that are files, by stream.
        """
        self.stdin = stdin
        self._sinks = sinks
        self._files = files

    def write(self, stream: str, data: bytes) -> None:
        """Write `data` of the stream "stdout" or "stderr"."""
        self._sinks[stream].write(data)

    async def flush(self) -> None:
        """Wait until all output is written."""
        for sink in self._sinks.values():
            await sink.flush()

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each output file, by stream."""
        return {name: os.fstat(file).st_size for name, file in self._files.items()}


class StreamOpener(Protocol):
    """Opens the streams of a program; the caller decides where they lead."""

    def __call__(
        self, task: MachineTask, consumed: Consumed, fail: Fail
    ) -> AbstractAsyncContextManager[ProgramStreams]:
        """Open the streams of `task`. Raises InputFileError, OutputFileError."""


class StdinFeed:
    """Feeds a program from `descriptor`, and never reads more than it has room for."""

    def __init__(
        self,
        descriptor: int,
        feed: Callable[[bytes], None],
        end: Callable[[], None],
        room: int,
        fail: Fail,
    ) -> None:
        self._descriptor = descriptor
        self._fail = fail
        self._feed = feed
        self._end = end
        self._room = room
        self._watching = False
        self._over = False
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._go_on()

    def add_room(self, count: int) -> None:
        """Record that the program has taken `count` bytes."""
        self._room += count
        self._go_on()

    def _go_on(self) -> None:
        if self._over or self._watching or self._room <= 0:
            return
        if not self._is_file:
            try:
                asyncio.get_running_loop().add_reader(self._descriptor, self._read)
            except PermissionError:
                self._is_file = True
            else:
                self._watching = True
                return
        while self._room > 0 and not self._over:
            self._read()

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, min(self._room, READ_SIZE))
        except BlockingIOError:
            return  # another reader was quicker
        except OSError as error:
            self.close()
            self._fail(InputFileError(f"standard input cannot be read: {error.strerror}"))
            return
        if data:
            self._room -= len(data)
            self._feed(data)
        else:
            self._over = True
            self._end()
        if self._over or self._room <= 0:
            self.pause()

    def pause(self) -> None:
        """Stop reading until there is room again."""
        if self._watching:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._watching = False

    def close(self) -> None:
        """Stop reading for good."""
        self._over = True
        self.pause()


def readable_stdin() -> int | None:
    """Return descriptor 0, or None if it is closed or a terminal that another job owns."""
    try:
        if is_background_job(0):
            return None
        os.fstat(0)
    except OSError:
        return None
    return 0
