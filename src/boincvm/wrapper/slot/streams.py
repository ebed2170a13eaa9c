"""A guest program's streams under the client: files in the slot, opened for appending.

A stream that the task does not name goes where ours goes: standard error to the client's
stderr.txt.
"""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from boincvm.errors import InputFileError, OutputFileError, host_error
from boincvm.host.files import open_descriptor
from boincvm.job.model import MachineTask
from boincvm.machine.streams import Consumed, DescriptorSink, Fail, ProgramStreams
from boincvm.side_thread import in_side_thread


def output_files(task: MachineTask) -> dict[str, Path]:
    """Return those outputs of `task` that are files, by stream."""
    named = {"stdout": task.stdout, "stderr": task.stderr}
    return {stream: path for stream, path in named.items() if path is not None}


@asynccontextmanager
async def open_streams(
    task: MachineTask,
    consumed: Consumed,
    fail: Fail,
    *,
    stdin_offset: int = 0,
    sizes: Mapping[str, int],
) -> AsyncIterator[ProgramStreams]:
    """Open the streams of `task`. This is a StreamOpener once its options are bound.

    `stdin_offset`: where a restored program continues to read. `sizes`: outputs lose what they have
    beyond these, which an earlier start wrote. Waits for an output that is a FIFO until somebody
    reads it. Raises InputFileError, OutputFileError.
    """
    opened: list[int] = []
    try:
        stdin = None
        if task.stdin is not None:
            stdin = _open_input(task.stdin)
            opened.append(stdin)
            if stat.S_ISREG(os.fstat(stdin).st_mode):
                os.lseek(stdin, stdin_offset, os.SEEK_SET)
        files = {}
        for name, path in output_files(task).items():
            files[name] = await _open_output(path, sizes.get(name))
            opened.append(files[name])
        sinks = {
            name: DescriptorSink(files.get(name, own), consumed, fail)
            for name, own in (("stdout", 1), ("stderr", 2))
        }
        yield ProgramStreams(stdin, sinks, files)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _open_input(path: Path) -> int:
    try:
        # If it is a FIFO, `Source` waits until somebody writes to it.
        descriptor = open_descriptor(path, follow_links=False, wait=False)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise InputFileError(f"{path} cannot be read: {error.strerror}") from error
    return descriptor


async def _open_output(path: Path, size: int | None) -> int:
    try:
        try:
            descriptor = open_descriptor(path, "a", follow_links=False, wait=False)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(path.lstat().st_mode):
                raise
            descriptor = await _open_when_it_is_read(path)
        status = os.fstat(descriptor)
        if size is not None and stat.S_ISREG(status.st_mode) and status.st_size > size:
            os.ftruncate(descriptor, size)
    except OSError as error:
        raise host_error(f"{path} cannot be written", error, OutputFileError) from error
    return descriptor


async def _open_when_it_is_read(fifo: Path) -> int:
    """Wait until somebody has opened the FIFO for reading; return its descriptor.

    The kernel reports that only to those who wait in open(2). Raises OSError.
    """
    waiting = asyncio.ensure_future(in_side_thread(open_descriptor, fifo, "a", follow_links=False))
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        waiting.add_done_callback(_close_result)
        with suppress(OSError):  # a short-lived reader releases the thread
            os.close(open_descriptor(fifo, follow_links=False, wait=False))
        raise


def _close_result(opened: asyncio.Future[int]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        os.close(opened.result())
