"""File transfers through a guest's host: files received for the guest or fetched from it."""

import asyncio
import hashlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from boincvm.controller.protocol.transfer_rules import (
    PIECE,
    Asked,
    as_host_errors,
    guest_file,
    open_up,
    remove,
)
from boincvm.errors import InputFileError, OutputFileError, UsageError
from boincvm.file_digest import digest_of
from boincvm.host.files import open_descriptor, read_at
from boincvm.host.filetree import set_time
from boincvm.node.machine_files import FileRoot
from boincvm.tar_trees import MOST_BYTES, pack, unpack
from boincvm.tree_entries import UnsafePathError, clamp_time

T = TypeVar("T")
AHEAD = 8 << 20
"""Bytes by which a piece may be ahead of what was received."""
_CONTENT, _TREE = "content", "tree"


class Fetched(NamedTuple):
    """A file or tree that is ready to be sent."""

    is_tree: bool
    mode: int
    size: int
    digest: str
    modified: int
    """Nanoseconds since 1970."""


class Transfer:
    """A transfer in either direction; its `directory` is made here and removed by `close`.

    `work` is the task that handles the whole file, once it has begun.
    """

    def __init__(self, root: FileRoot, directory: Path) -> None:
        self._root = root
        self._directory = directory
        self._descriptor = -1
        self._stop = threading.Event()
        self.touched = 0.0
        """Time of the last request, by the event loop's clock."""
        with as_host_errors():
            directory.mkdir(mode=0o700)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread and wait for its end even if cancelled.

        Otherwise it could still write to what was removed.
        """
        task = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._stop.set()
            await asyncio.wait((task,))
            task.cancelled() or task.exception()  # mark it as retrieved
            raise

    async def close(self) -> None:
        """Remove all files of the transfer. Raises HostError."""
        self._stop.set()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with as_host_errors():
            await asyncio.to_thread(remove, self._directory)


class PutTransfer(Transfer):
    """A transfer to the guest."""

    def __init__(self, root: FileRoot, directory: Path, request: Asked) -> None:
        super().__init__(root, directory)
        self.request = request
        self.offset = 0
        """Bytes received."""
        self.work: asyncio.Task[None] | None = None
        self._is_closed = False
        self._news = asyncio.Event()
        self._hash = hashlib.blake2b(digest_size=32)
        self._file = directory / _CONTENT
        with as_host_errors():
            self._descriptor = open_descriptor(self._file, "x", permissions=0o600)

    async def receive(self, offset: int, data: bytes) -> None:
        """Receive a piece, after waiting for all pieces before it; repeating one is harmless.

        Raises UsageError, HostDiskFullError, HostError.
        """
        if offset + len(data) > self.request.size or offset > self.offset + AHEAD:
            raise UsageError("a piece of a file that lies outside it, or too far ahead")
        while offset > self.offset and not self._is_closed:
            await self._news.wait()
        if self._is_closed:
            raise UsageError("the transfer ended before everything had arrived")
        view = memoryview(data)[self.offset - offset :]
        with as_host_errors():
            while view:
                written = os.write(self._descriptor, view)
                self._hash.update(view[:written])
                self.offset += written
                view = view[written:]
        self._notify()

    def _notify(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def deliver(self) -> None:
        """Verify what was received, and put it into the guest. Raises BoincvmError."""
        request = self.request
        if self.offset != request.size or self._hash.hexdigest() != request.digest:
            raise InputFileError(
                f"what was received for {request.path} differs from what was sent",
                hint="send it again",
            )
        source = self._file
        if request.is_tree:
            source = await self._unpacked()
        else:
            with as_host_errors():
                source.chmod(request.mode | 0o400)
                set_time(os.fsencode(source), request.modified)
        await self._root.put(source, guest_file(request.path), request.mode)

    async def _unpacked(self) -> Path:
        def work() -> None:
            unpack(self._file, self._directory, _TREE, self._stop)
            self._file.unlink()

        try:
            with as_host_errors():
                await self._in_thread(work)
        except UnsafePathError as error:
            raise InputFileError(
                f"the tree for {self.request.path} is refused: {error}",
                hint="send files, directories and links within the tree, as plain tar",
            ) from error
        return self._directory / _TREE

    async def close(self) -> None:
        self._is_closed = True
        self._notify()
        await super().close()


class GetTransfer(Transfer):
    """A transfer from the guest; `work` fetches everything and describes it."""

    def __init__(self, root: FileRoot, directory: Path, path: PurePosixPath) -> None:
        super().__init__(root, directory)
        self.path = path
        self.work: asyncio.Task[Fetched] | None = None
        self._size = 0

    async def fetch(self) -> Fetched:
        """Fetch everything from the guest. Raises BoincvmError."""
        file = self._directory / _CONTENT
        await self._root.get(self.path, file)
        try:
            with as_host_errors():
                fetched = await self._in_thread(self._check)
                self._descriptor = open_descriptor(file, follow_links=False)
        except UnsafePathError as error:
            raise OutputFileError(f"the guest's {self.path} cannot be sent: {error}") from error
        self._size = fetched.size
        return fetched

    def _check(self) -> Fetched:
        """Turn what was fetched into one file to be sent. Runs in a thread."""
        file, tree = self._directory / _CONTENT, self._directory / _TREE
        status = file.lstat()
        is_tree, mode = stat.S_ISDIR(status.st_mode), stat.S_IMODE(status.st_mode) & 0o777
        if is_tree:
            file.rename(tree)
            open_up(tree, files=0o400, directories=0o700)
            pack(self._directory, _TREE, file, self._stop)
            remove(tree)
        else:
            open_up(file, files=0o400, directories=0)
        size, digest = digest_of(file)
        if size > MOST_BYTES:
            raise UnsafePathError("it is too large")
        return Fetched(is_tree, mode, size, digest, clamp_time(status.st_mtime_ns))

    def piece(self, offset: int) -> bytes:
        """Return PIECE bytes from `offset` on, fewer at the end. Raises UsageError, HostError."""
        if self._descriptor < 0 or offset > self._size:
            raise UsageError("a piece of a file that is not ready, or lies outside it")
        with as_host_errors():
            return read_at(self._descriptor, PIECE, offset)
