"""The streams of a program that `boincvm run` runs."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm import tree_entries
from boincvm.errors import InputFileError, OutputFileError, host_error
from boincvm.guestlink.display import shown
from boincvm.guestlink.safe_open import open_source
from boincvm.host import filetree
from boincvm.host.files import open_descriptor
from boincvm.job.model import MachineTask
from boincvm.machine.streams import (
    Consumed,
    DescriptorSink,
    Fail,
    MemorySink,
    ProgramStreams,
    Sink,
    readable_stdin,
)
from boincvm.tree_entries import UnsafePathError

if TYPE_CHECKING:
    from boincvm.machine.saved_machine import SavedTask  # it imports `hashlib` and more

CAPTURED = 1 << 20
"""Bytes of each stream that a captured run keeps."""


class RunStreams:
    """Opens the streams of tasks.

    Files that a task names are beneath `directory` and are reached without following links. Other
    streams are our own, or memory if `capture` is set.
    """

    on_terminal: Callable[[bytes], None] | None = None
    """Called with what is about to be written to a terminal."""

    def __init__(self, directory: Path, *, capture: bool) -> None:
        self._directory = directory
        self._capture = capture
        self.captured: dict[str, MemorySink] = {}
        """What programs have written to memory, one after the other, by stream."""

    @asynccontextmanager
    async def open(
        self,
        task: MachineTask,
        consumed: Consumed,
        fail: Fail,
        *,
        saved: SavedTask | None = None,
    ) -> AsyncIterator[ProgramStreams]:
        """Open the streams of `task`. This is a StreamOpener.

        `saved`: where a restored program goes on; files lose what was written after that. Raises
        InputFileError, OutputFileError; the latter also for a FIFO that nobody reads.
        """
        with ExitStack() as stack:
            stdin = self._open_stdin(task, stack)
            if saved is not None and stdin is not None and stat.S_ISREG(os.fstat(stdin).st_mode):
                os.lseek(stdin, saved.stdin, os.SEEK_SET)
            sizes = saved.files if saved is not None else {}
            files: dict[str, int] = {}
            sinks: dict[str, Sink] = {}
            for name, path, own in (("stdout", task.stdout, 1), ("stderr", task.stderr, 2)):
                if path is not None:
                    size = sizes.get(name)
                    descriptor = _open_output(self._directory, path, stack, size)
                    files[name] = descriptor
                    sinks[name] = DescriptorSink(descriptor, consumed, fail)
                elif self._capture:
                    sinks[name] = self._memory(name, consumed)
                else:
                    sinks[name] = self._own(own, consumed, fail)
            yield ProgramStreams(stdin, sinks, files)

    def _own(self, descriptor: int, consumed: Consumed, fail: Fail) -> Sink:
        sink = DescriptorSink(descriptor, consumed, fail)
        if self.on_terminal is None or not os.isatty(descriptor):
            return sink
        return _NoticedSink(sink, self.on_terminal)

    def _memory(self, name: str, consumed: Consumed) -> MemorySink:
        sink = self.captured.setdefault(name, MemorySink(CAPTURED, consumed))
        sink.consumed = consumed
        return sink

    def _open_stdin(self, task: MachineTask, stack: ExitStack) -> int | None:
        if task.stdin is None:
            return readable_stdin()
        try:
            descriptor = _open_input(self._directory, task.stdin)
        except UnsafePathError as error:
            raise InputFileError(f"standard input {shown(task.stdin)}: {error}") from error
        except OSError as error:
            raise InputFileError(
                f"standard input {shown(task.stdin)}: {error.strerror}",
                hint=f"paths are relative to {self._directory}",
            ) from error
        stack.callback(os.close, descriptor)
        return descriptor


class _NoticedSink:
    """Passes output on, and calls `notice` with it before."""

    def __init__(self, sink: Sink, notice: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._notice = notice

    def write(self, data: bytes) -> None:
        self._notice(data)
        self._sink.write(data)

    async def flush(self) -> None:
        await self._sink.flush()


def _open_input(directory: Path, path: Path) -> int:
    if path.is_absolute():
        # It may be /dev/stdin or /dev/fd/N, which are links; a pipe's writer may come later.
        return open_descriptor(path, wait=False)
    root, beneath = open_source(directory, path)
    try:
        return _open_beneath(root, beneath, "r")
    finally:
        os.close(root)


def _open_output(directory: Path, path: Path, stack: ExitStack, size: int | None) -> int:
    """Open an output file, empty, or with at most the first `size` bytes of what is in it."""
    try:
        root = filetree.open_directory(directory)
        try:
            mode = "w" if size is None else "a"
            descriptor = _open_beneath(root, os.fsencode(path.as_posix()), mode)
        finally:
            os.close(root)
    except UnsafePathError as error:
        raise OutputFileError(f"output {shown(path)}: {error}") from error
    except OSError as error:
        raise host_error(f"output {shown(path)}", error, OutputFileError) from error
    stack.callback(os.close, descriptor)
    status = os.fstat(descriptor)
    if size is not None and stat.S_ISREG(status.st_mode) and status.st_size > size:
        os.ftruncate(descriptor, size)
    return descriptor


def _open_beneath(root: int, path: bytes, mode: str) -> int:
    """Open `path` beneath the directory `root`; it may not be or lead through a link."""
    parts = tree_entries.components(path)
    parent = filetree.open_parent(root, parts)
    try:
        name = parts[-1] if parts else b"."
        return open_descriptor(name, mode, follow_links=False, wait=False, parent=parent)
    finally:
        os.close(parent)
