"""Advisory locks, which the kernel releases when their holder dies, however it dies."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.host.files import open_descriptor
from boincvm.host.own_files import make_directory

if sys.platform == "win32":
    from boincvm.host.locks_windows import (
        ARE_INHERITED,
        close_directory_lock,
        is_at,
        lock,
        lock_slot_file,
        open_lockable_directory,
        release_slot_file,
        remove_locked_directory,
        remove_locked_file,
        try_lock,
    )
else:
    from boincvm.host.locks_posix import (
        ARE_INHERITED,
        close_directory_lock,
        is_at,
        lock,
        lock_slot_file,
        open_lockable_directory,
        release_slot_file,
        remove_locked_directory,
        remove_locked_file,
        try_lock,
    )

__all__ = [
    "ARE_INHERITED",
    "close_directory_lock",
    "exclusive",
    "is_at",
    "lock",
    "lock_slot_file",
    "open_lock",
    "open_lockable_directory",
    "release_slot_file",
    "remove_locked_directory",
    "remove_locked_file",
    "try_exclusive",
    "try_lock",
]


def open_lock(path: Path) -> int:
    """Open the lock file `path`, creating it if missing; it is never removed. Raises OSError."""
    return open_descriptor(path, "c+", permissions=0o600)


@contextmanager
def exclusive(path: Path, waits: Callable[[], object] | None = None) -> Iterator[None]:
    """Wait for the lock file `path` and hold it in the block.

    `waits` is called once if another process holds it. Raises OSError.
    """
    make_directory(path.parent)
    descriptor = open_lock(path)
    try:
        if not try_lock(descriptor):
            if waits is not None:
                waits()
            lock(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def try_exclusive(path: Path) -> Iterator[bool]:
    """Try to hold the lock file `path` in the block; yield whether it was free.

    Raises OSError.
    """
    descriptor = open_lock(path)
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)
