"""Copies over the HTTP API that survive a restart of the controller or a lost connection.

The machine's host keeps what it has received, or prepared, under the copy's id.
"""

import secrets
import threading
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import BinaryIO, TypeVar

from boincvm.client.client import Client, Gotten, Table
from boincvm.errors import ControllerAwayError, ControllerGoneError, OutputFileError

WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each further attempt; after the last one the copy fails."""
_PIECE = 1 << 18
_T = TypeVar("_T")

Progress = Callable[[int, int], None]
"""Takes the number of bytes copied, and their total."""


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
