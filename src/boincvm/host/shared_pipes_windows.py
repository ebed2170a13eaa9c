"""Streams between processes on Windows: pairs of connected sockets.

Import it through `shared_pipes`. A socket can be given to a process that runs, by its id
(WSADuplicateSocketW); QEMU's monitor takes one so, and for our own child it is written to its
standard input. All copies are the same socket: shutting one down ends the stream for its reader,
though the process that wrote it keeps its copy open, as QEMU does.
"""

import asyncio
import base64
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from boincvm.host.descriptor_streams import DescriptorReader
from boincvm.host.processes import ChildProcess

assert sys.platform == "win32"

_STDIN, _STDOUT = 0, 1
_PIECE = 1 << 16


class PipeEnd:
    """One end of a pair of sockets."""

    inherited: int | None = None
    """No child inherits it."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @property
    def descriptor(self) -> int:
        """Return -1: it is none."""
        return -1

    def share(self, process: int) -> int | bytes:
        """Return what QEMU's monitor, or `socket.fromshare`, takes in that process.

        Raises OSError.
        """
        return self._socket.share(process)

    def open_to_write(self, buffering: int) -> BinaryIO:
        """Return a file object over it, which does not close it."""
        return cast("BinaryIO", self._socket.makefile("wb", buffering=buffering))

    def close(self) -> None:
        """End the stream, and close the end here. Idempotent."""
        with suppress(OSError):  # the other end has gone, or it is closed already
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.close()


class SharedPipe:
    """A pair of sockets; each end is the caller's to close."""

    def __init__(self) -> None:
        """Make it. Raises OSError."""
        reader, writer = socket.socketpair()
        self.reader, self.writer = PipeEnd(reader), PipeEnd(writer)

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
        self.stream, self._reader = pipe.writer, pipe.reader
        """`stream`: the end that the other process gets."""
        given, requests = os.pipe()
        self._result, its = os.pipe()
        try:
            self._process = ChildProcess(
                command(_STDIN, _STDOUT), directory=directory, stdin=given, stdout=its
            )
            shared = self._reader.share(self._process.pid)
            if isinstance(shared, bytes):
                os.write(requests, base64.b64encode(shared) + b"\n")
        except BaseException:
            pipe.close()
            os.close(self._result)
            raise
        finally:
            for end in (given, its, requests):
                os.close(end)
        self._reports_end: asyncio.Event | None = None

    async def connect(self, limit: int) -> asyncio.StreamReader:
        """Return the reader of its reports, of which a line has at most `limit` bytes."""
        stream = asyncio.StreamReader(limit=limit)
        over = self._reports_end = asyncio.Event()

        def handle() -> None:
            try:
                data = reports.read(_PIECE)
            except OSError:  # it was killed
                data = b""
            if data:
                stream.feed_data(data)
            else:
                stream.feed_eof()
                reports.stop()
                over.set()

        reports = DescriptorReader(self._result, handle)
        reports.start(_PIECE)
        return stream

    async def close(self) -> None:
        """Kill it, whatever it does."""
        self._process.kill()
        await self._process.wait()
        self.stream.close()
        self._reader.close()
        if self._reports_end is not None:
            await self._reports_end.wait()  # a thread reads them
        os.close(self._result)


def open_given(number: int, buffering: int) -> BinaryIO:
    """Open, in the child, the stream that it was given on its standard input. Raises OSError."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(number, 1 << 12)
        if not piece:
            raise OSError("it was given no stream")
        line += piece
    with socket.fromshare(base64.b64decode(line)) as end:
        return cast("BinaryIO", end.makefile("rb", buffering=buffering))
