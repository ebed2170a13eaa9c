"""The host's ends of a program's streams.

Nothing blocks, and nothing is read before it is needed.
"""

import errno
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Protocol

from boincvm.errors import BoincvmError, HostDiskFullError, InputFileError, host_error
from boincvm.exit_codes import ExitCode
from boincvm.host.descriptor_streams import DescriptorReader, DescriptorWriter
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
        self._writer = DescriptorWriter(
            descriptor, consumed, lambda error: fail(_output_error(error))
        )

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def flush(self) -> None:
        await self._writer.flush()


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
        self._reader = DescriptorReader(descriptor, self._read)
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
            self._watching = self._reader.start(self._room)
            if self._watching:
                return
            self._is_file = True
        while self._room > 0 and not self._over:
            self._read()

    def _read(self) -> None:
        try:
            most = min(self._room, READ_SIZE)
            data = os.read(self._descriptor, most) if self._is_file else self._reader.read(most)
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
            self._reader.stop()
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
