"""A guest program's streams under the client: files of the slot, opened for append.

What the task does not name goes where ours goes: standard error to the client's stderr.txt.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.errors import InputFileError, OutputFileError
from boincvm.wrapper.streams import DescriptorSink, Fail, Taken
from boincvm.wrapper.task_plan import MachineCommand


class SlotStreams:
    """`stdin` is a descriptor or None; `sizes` are those of the output files, by path."""

    def __init__(self, stdin: int | None, files: dict[str, int], taken: Taken, fail: Fail) -> None:
        self.stdin = stdin
        self._files = files
        self._sinks = {
            name: DescriptorSink(files.get(name, own), taken, fail)
            for name, own in (("stdout", 1), ("stderr", 2))
        }

    def write(self, stream: str, data: bytes) -> None:
        """Takes `data` of "stdout" or "stderr"."""
        self._sinks[stream].write(data)

    async def flush(self) -> None:
        """Until all output has found its place."""
        for sink in self._sinks.values():
            await sink.flush()

    def sizes(self) -> dict[str, int]:
        """Bytes in each file of output, by stream."""
        return {name: os.fstat(file).st_size for name, file in self._files.items()}


@contextmanager
def open_streams(
    command: MachineCommand,
    taken: Taken,
    fail: Fail,
    *,
    stdin_offset: int = 0,
    sizes: dict[str, int],
) -> Iterator[SlotStreams]:
    """The streams of `command`. A program that goes on from where it was saved goes on at
    `stdin_offset`; its outputs lose what they have beyond `sizes`, written by a former start.

    Raises InputFileError, OutputFileError.
    """
    opened: list[int] = []
    try:
        stdin = None
        if command.stdin is not None:
            stdin = _open_input(command.stdin)
            opened.append(stdin)
            os.lseek(stdin, stdin_offset, os.SEEK_SET)
        files = {}
        for name, path in command.output_streams().items():
            files[name] = _open_output(path, sizes.get(name))
            opened.append(files[name])
        yield SlotStreams(stdin, files, taken, fail)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _open_input(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputFileError(f"standard input {path}: {error.strerror}") from error


def _open_output(path: Path, size: int | None) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
        if size is not None and os.fstat(descriptor).st_size > size:
            os.ftruncate(descriptor, size)
    except OSError as error:
        raise OutputFileError(f"output {path}: {error.strerror}") from error
    return descriptor
