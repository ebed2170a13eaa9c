"""Copies over the HTTP API that survive a restart of the controller or a lost connection.

The machine's host keeps what it has received, or prepared, under the copy's id.
"""

import os
import secrets
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, TypeVar

from boincvm.client.client import Client, Gotten, Table
from boincvm.errors import (
    ControllerAwayError,
    ControllerGoneError,
    InputFileError,
    OutputFileError,
    host_error,
)
from boincvm.host.filetree import set_time
from boincvm.tree_entries import UnsafePathError, clamp_time

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each further attempt; after the last one the copy fails."""
_PIECE = 1 << 18
_T = TypeVar("_T")

Progress = Callable[[int, int], None]
"""Takes the number of bytes copied, and their total."""


def put_path(client: Client, vms: str, name: str, source: Path, progress: Progress) -> Table:
    """Put the file or tree `source` of this host into machines, where it is called `name`.

    Returns the outcomes by id. Raises BoincvmError.
    """
    try:
        is_tree = source.is_dir() and not source.is_symlink()
        status = source.stat()
        with _content(source, is_tree=is_tree) as file:
            return put(
                client,
                vms,
                name,
                file,
                os.fstat(file.fileno()).st_size,
                is_tree=is_tree,
                mode=stat.S_IMODE(status.st_mode) & 0o777,
                modified=clamp_time(status.st_mtime_ns),
                progress=progress,
            )
    except OSError as error:
        raise InputFileError(f"{source} cannot be read: {error.strerror}") from error
    except UnsafePathError as error:
        raise InputFileError(f"{source}: {error}") from error


def _content(source: Path, *, is_tree: bool) -> BinaryIO:
    """Open the file, or the tree as a tar stream in an unnamed file."""
    if not is_tree:
        return source.open("rb")
    from boincvm.tar_trees import pack

    with tempfile.TemporaryDirectory() as temporary:
        packed = Path(temporary) / "tree"
        pack(source.absolute().parent, source.absolute().name, packed, threading.Event())
        return packed.open("rb")


def get_path(client: Client, vm: str, path: str, destination: Path, progress: Progress) -> None:
    """Copy a file or tree of a machine to `destination`, which must not be a directory yet.

    Raises BoincvmError.
    """
    parent = destination.absolute().parent
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".boincvm-") as temporary:
            part = Path(temporary) / "content"
            with part.open("xb") as file:
                gotten = fetch(client, vm, path, file, progress)
            if gotten.is_tree:
                from boincvm.tar_trees import unpack

                unpack(part, Path(temporary), "tree", threading.Event())
                part = Path(temporary) / "tree"
            part.chmod(gotten.mode & 0o777)
            set_time(os.fsencode(part), gotten.modified)
            part.rename(destination)
    except OSError as error:
        raise host_error(f"{destination} cannot be written", error, OutputFileError) from error
    except UnsafePathError as error:
        raise OutputFileError(f"{vm}:{path} is refused: {error}") from error


def put(
    client: Client,
    vms: str,
    path: str,
    file: BinaryIO,
    size: int,
    *,
    is_tree: bool,
    mode: int,
    modified: int | None = None,
    progress: Progress,
) -> Table:
    """Put a file or tree into machines; return the outcomes by id, as `Client.put` does.

    `file` has `size` bytes. Raises BoincvmError.
    """
    transfer = secrets.token_hex(8)

    def attempt() -> Table:
        file.seek(0)
        body = _pieces(file, size, progress)
        return client.put(
            vms, path, body, size, is_tree=is_tree, mode=mode, transfer=transfer, modified=modified
        )

    return _again_and_again(attempt)


def fetch(client: Client, vm: str, path: str, file: BinaryIO, progress: Progress) -> Gotten:
    """Copy a file or tree into `file`, which must be empty; the result's `chunks` are used up.

    Raises BoincvmError.
    """
    transfer, hashed = secrets.token_hex(8), blake2b(digest_size=32)

    def attempt() -> Gotten:
        begin = file.tell()
        with client.get(vm, path, transfer=transfer, begin=begin) as gotten:
            for chunk in gotten.chunks:
                file.write(chunk)
                hashed.update(chunk)
                progress(file.tell(), begin + (gotten.size or 0))
            return gotten

    gotten = _again_and_again(attempt)
    if hashed.hexdigest() != gotten.digest:
        raise OutputFileError("what was received differs from what was sent", hint="copy it again")
    return gotten


def _again_and_again(attempt: Callable[[], _T]) -> _T:
    """Repeat `attempt` while the controller is away; fail at once if it was never reached."""
    has_begun = False
    for wait in WAITS:
        try:
            return attempt()
        except ControllerAwayError as error:
            has_begun = has_begun or isinstance(error, ControllerGoneError)
            if not has_begun:
                raise
            threading.Event().wait(wait)  # there is no notification when it is back
    return attempt()


def _pieces(file: BinaryIO, size: int, progress: Progress) -> Iterator[bytes]:
    while data := file.read(_PIECE):
        yield data
        progress(file.tell(), size)
