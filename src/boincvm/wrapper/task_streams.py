"""Which file or descriptor of the host each stream of a task is."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from boincvm import tree_entries
from boincvm.errors import InputFileError, OutputFileError, host_error
from boincvm.guestlink.reports import shown
from boincvm.guestlink.source import open_source
from boincvm.host import filetree
from boincvm.host.files import open_descriptor
from boincvm.job.model import Task
from boincvm.tree_entries import UnsafePathError
from boincvm.wrapper.streams import DescriptorSink, Fail, MemorySink, Sink, readable_stdin

CAPTURED = 1 << 20
"""Bytes of each stream that a captured run keeps."""


class TaskStreams:
    """The open streams of one task. `taken` is told of output that has found its place."""

    def __init__(self, stdin: int | None) -> None:
        self.stdin = stdin
        self.taken: Callable[[int], None] = lambda _: None
        self.sinks: dict[str, Sink] = {}

    def write(self, stream: str, data: bytes) -> None:
        """Takes `data` of `stream`: "stdout" or "stderr"."""
        self.sinks[stream].write(data)

    async def flush(self) -> None:
        """Waits until all output has found its place."""
        for sink in self.sinks.values():
            await sink.flush()


class StreamPlan:
    """Where streams go that the task does not name: our own, or memory if `capture`."""

    def __init__(self, *, capture: bool) -> None:
        self._capture = capture
        self.captured: dict[str, MemorySink] = {}

    @contextmanager
    def open(self, task: Task, directory: Path, fail: Fail) -> Iterator[TaskStreams]:
        """The streams of `task`; relative paths start from `directory`.

        Raises InputFileError, OutputFileError.
        """
        with ExitStack() as stack:
            streams = TaskStreams(self._open_stdin(task, directory, stack))

            def taken(count: int) -> None:
                streams.taken(count)

            for name, path, own in (("stdout", task.stdout, 1), ("stderr", task.stderr, 2)):
                if path is not None:
                    descriptor = _open_output(directory, path, stack)
                    streams.sinks[name] = DescriptorSink(descriptor, taken, fail)
                elif self._capture:
                    sink = self.captured.setdefault(name, MemorySink(CAPTURED, taken))
                    sink.taken = taken
                    streams.sinks[name] = sink
                else:
                    streams.sinks[name] = DescriptorSink(own, taken, fail)
            yield streams

    def _open_stdin(self, task: Task, directory: Path, stack: ExitStack) -> int | None:
        if task.stdin is None:
            return readable_stdin()
        try:
            descriptor = _open_input(directory, task.stdin)
        except UnsafePathError as error:
            raise InputFileError(f"standard input {shown(task.stdin)}: {error}") from error
        except OSError as error:
            raise InputFileError(
                f"standard input {shown(task.stdin)}: {error.strerror}",
                hint=f"paths are relative to {directory}",
            ) from error
        stack.callback(os.close, descriptor)
        return descriptor


def _open_input(directory: Path, path: Path) -> int:
    if path.is_absolute():
        # It may be /dev/stdin or /dev/fd/N, which are links; a pipe's writer may come later.
        return open_descriptor(path, wait=False)
    root, beneath = open_source(directory, path)
    try:
        return _open_beneath(root, beneath, "r")
    finally:
        os.close(root)


def _open_output(directory: Path, path: Path, stack: ExitStack) -> int:
    try:
        root = filetree.open_directory(directory)
        try:
            descriptor = _open_beneath(root, os.fsencode(path), "w")
        finally:
            os.close(root)
    except UnsafePathError as error:
        raise OutputFileError(f"output {shown(path)}: {error}") from error
    except OSError as error:
        raise host_error(f"output {shown(path)}", error, OutputFileError) from error
    stack.callback(os.close, descriptor)
    return descriptor


def _open_beneath(root: int, path: bytes, mode: str) -> int:
    """Opens `path` beneath the directory `root`, with no link on the way or at its end."""
    parts = tree_entries.components(path)
    parent = filetree.open_parent(root, parts)
    try:
        name = parts[-1] if parts else b"."
        return open_descriptor(name, mode, follow_links=False, wait=False, parent=parent)
    finally:
        os.close(parent)
