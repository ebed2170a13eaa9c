"""Streams between processes on Linux and macOS: pipes; import it through `shared_pipes`."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from boincvm.host.channels import widen
from boincvm.host.processes import ChildProcess

if TYPE_CHECKING:
    import asyncio  # a start of a machine imports it later

assert sys.platform != "win32"

_SIZE = 1 << 20


class PipeEnd:
    """One end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        """-1 once it is closed."""

    @property
    def inherited(self) -> int | None:
        """The number under which a child has it that is started with it, if children can."""
        return self.descriptor

    def share(self, process: int) -> int | bytes:
        """Return what QEMU's monitor takes: a descriptor that is sent to the process."""
        return self.descriptor

    def open_to_write(self, buffering: int) -> BinaryIO:
        """Return a file object over it, which does not close it."""
        return open(self.descriptor, "wb", buffering=buffering, closefd=False)

    def close(self) -> None:
        """Close it here; processes that were given it have their own. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class SharedPipe:
    """A pipe; each end is the caller's to close."""

    def __init__(self) -> None:
        """Make it. Raises OSError."""
        self.reader, self.writer = map(PipeEnd, os.pipe())

    def close(self) -> None:
        """Close both ends. Idempotent."""
        self.reader.close()
        self.writer.close()


class StreamHelper:
    """A child that reads a stream which another process writes, and reports in lines."""

    def __init__(self, command: Callable[[int, int], list[str]], directory: Path) -> None:
        """Start the child: `command` is given its numbers of the stream and for its reports.

        Raises OSError.
        """
        pipe = SharedPipe()
        self.stream = pipe.writer
        """The end that the other process gets."""
        result, its = os.pipe()
        with suppress(OSError):  # it stays small if this user has too many pipes
            widen(self.stream.descriptor, _SIZE)
        try:
            self._process = ChildProcess(
                command(pipe.reader.descriptor, its),
                directory=directory,
                descriptors=[pipe.reader.descriptor, its],
            )
        except BaseException:
            self.stream.close()
            os.close(result)
            raise
        finally:
            pipe.reader.close()
            os.close(its)
        self._result = result
        self._transport: asyncio.BaseTransport | None = None

    async def connect(self, limit: int) -> "asyncio.StreamReader":
        """Return the reader of its reports, of which a line has at most `limit` bytes."""
        import asyncio

        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=limit)
        pipe = os.fdopen(self._result, "rb", buffering=0)
        self._result = -1
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        return reader

    async def close(self) -> None:
        """Kill it, whatever it does."""
        self.stream.close()
        self._process.kill()
        await self._process.wait()
        if self._transport is not None:
            self._transport.close()
        elif self._result >= 0:
            os.close(self._result)


def open_given(number: int, buffering: int) -> BinaryIO:
    """Open, in the child, the stream that it was given."""
    return os.fdopen(number, "rb", buffering=buffering)
