"""A directory of this host as the root of a guest's files: nothing outside it can be reached."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from threading import Event

from boincvm import tree_entries
from boincvm.controller.protocol.transfer_rules import remove
from boincvm.errors import (
    BoincvmError,
    HostDiskFullError,
    InputFileError,
    OutputFileError,
    UsageError,
    host_error,
)
from boincvm.guestlink.display import shown
from boincvm.host import filetree
from boincvm.host.files import read_at
from boincvm.host.filetree import TreeWriter
from boincvm.tar_trees import MOST_BYTES, MOST_ENTRIES
from boincvm.tree_entries import UnsafePathError

_CHUNK = 1 << 20


class HostDirectory:
    """A `FileRoot`. No link is followed on the path to a file, nor within a tree."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def check(self, path: PurePosixPath, /) -> None:
        """Check that `path` is beneath the directory. Raises UsageError."""
        if path.is_absolute():
            raise UsageError(
                f"{shown(path)} is outside the directory of this guest, which is not a machine",
                hint="give a path that is relative to its directory",
            )

    async def put(self, source: Path, destination: PurePosixPath, mode: int) -> None:
        """Copy `source` into the directory.

        Raises InputFileError, HostDiskFullError, UsageError.
        """
        self.check(destination)
        parts = tree_entries.components(os.fsencode(destination))
        part = f".{os.urandom(8).hex()}.boincvm-part"

        def work(stop: Event) -> None:
            with _opened(self._root) as root:
                parent = filetree.open_parent(root, parts, create=True)
                try:
                    _copy(source.parent, source.name, parent, part, stop, mode)
                    filetree.rename(os.fsencode(part), parts[-1], parent)
                finally:
                    os.close(parent)
                    remove(self._root / destination.parent / part)

        with _translated_errors(destination, InputFileError, "does something else have that name?"):
            await _to_its_end(work)

    async def get(self, source: PurePosixPath, destination: Path) -> None:
        """Copy `source` out of the directory.

        Raises OutputFileError, HostDiskFullError, UsageError.
        """
        self.check(source)

        def work(stop: Event) -> None:
            with _opened(destination.parent) as parent:
                _copy(self._root, str(source), parent, destination.name, stop)

        with _translated_errors(
            source, OutputFileError, "boincvm exec GUEST -- ls shows the files there"
        ):
            await _to_its_end(work)


def _copy(
    top: Path, path: str, parent: int, name: str, stop: Event, mode: int | None = None
) -> None:
    """Copy `path` beneath `top` to `name` in the directory `parent`.

    `mode` applies to a file. Raises UnsafePathError, OSError.
    """
    writer = TreeWriter(
        parent, os.fsencode(name), maximum_bytes=MOST_BYTES, maximum_entries=MOST_ENTRIES
    )
    with _opened(top) as root, closing(writer):
        with closing(filetree.walk(root, os.fsencode(path))) as entries:
            for entry, descriptor in entries:
                if mode is not None and entry.kind == "file" and not entry.path:
                    entry.mode = mode
                writer.add(entry)
                if descriptor >= 0:
                    _copy_content(descriptor, entry.size, writer, stop)
        writer.finish()


def _copy_content(descriptor: int, size: int, writer: TreeWriter, stop: Event) -> None:
    for start, length in filetree.extents(descriptor, size):
        offset, end = start, start + length
        while offset < end:
            data = read_at(descriptor, min(_CHUNK, end - offset), offset)
            if not data or stop.is_set():
                raise UnsafePathError("a file became shorter while it was read")
            writer.write(offset, data)
            offset += len(data)


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = filetree.open_directory(directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _translated_errors(path: PurePosixPath, kind: type[BoincvmError], hint: str) -> Iterator[None]:
    try:
        yield
    except UnsafePathError as error:
        raise kind(f"{shown(path)} in the guest: {error}") from error
    except OSError as error:
        full = f"no room for {shown(path)}: the disk of the guest is full"
        raise host_error(
            f"{shown(path)} in the guest",
            error,
            kind,
            hint=hint,
            full=HostDiskFullError(full, hint="free some space there"),
        ) from error


async def _to_its_end(work: Callable[[Event], None]) -> None:
    """Run `work` in a thread and wait for its end even if cancelled, so that it writes no more."""
    stop = Event()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait((task,))
        task.cancelled() or task.exception()  # mark it as retrieved
        raise
