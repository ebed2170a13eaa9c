"""Directories that one process holds each, and that others may remove once it has gone.

PARENT/lock      held for a moment, while a directory is made, tried, or removed
PARENT/ID/lock   held as long as the process lives: the kernel releases it, however it ends
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from boincvm.host.locks import exclusive, open_lock, try_lock
from boincvm.host.own_files import make_directory

_LOCK = "lock"


def make_held(parent: Path, name: str = "") -> tuple[Path, int]:
    """Return a new directory, and the descriptor that holds it until it is closed.

    It is this user's alone. Its name is random unless one is given. Raises OSError, which is
    FileExistsError if a name is taken.
    """
    make_directory(parent)
    with exclusive(parent / _LOCK):
        directory = parent / (name or secrets.token_hex(4))
        directory.mkdir(mode=0o700)
        held = open_lock(directory / _LOCK)
        try_lock(held)  # it is free: nobody else tries it meanwhile
    return directory, held


def abandoned(parent: Path, is_meant: Callable[[Path], bool] = lambda _: True) -> Iterator[Path]:
    """Yield each directory whose process has gone; it is held until the next one is asked for.

    Those that are not meant are not even tried, as another process that tries one at the same time
    would find it held. Raises OSError.
    """
    if not parent.is_dir():
        return
    for directory in filter(is_meant, parent.iterdir()):
        with exclusive(parent / _LOCK):
            held = _try_to_hold(directory)
        if held is None:
            continue
        try:
            yield directory
        finally:
            os.close(held)


def remove_held(directory: Path) -> None:
    """Remove a directory that this process holds, unless somebody has. Raises OSError."""
    with suppress(FileNotFoundError), exclusive(directory.parent / _LOCK):
        shutil.rmtree(directory)


def _try_to_hold(directory: Path) -> int | None:
    try:
        held = open_lock(directory / _LOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None  # it has just been removed, or is no such directory
    if try_lock(held):
        return held
    os.close(held)
    return None
