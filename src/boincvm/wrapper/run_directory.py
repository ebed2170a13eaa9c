"""One directory a run, mode 0700, locked while the run lives, gone when it ends.

A run that is killed cannot tidy up; the next run removes what is no longer locked.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.paths import runs_directory


@contextmanager
def run_directory() -> Iterator[Path]:
    """A new, empty directory for as long as the block lasts. Raises OSError."""
    runs = runs_directory()
    runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_stale(runs)
    directory = runs / secrets.token_hex(8)
    directory.mkdir(mode=0o700)
    lock = _lock(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(directory: Path) -> int | None:
    """A descriptor that holds the lock, or None where another process holds it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_stale(runs: Path) -> None:
    for directory in runs.iterdir():
        try:
            lock = _lock(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue  # another run has just ended
        if lock is not None:
            # A run that is just beginning has made its directory and not locked it yet: then
            # the directory is empty, and stays.
            if any(directory.iterdir()):
                shutil.rmtree(directory, ignore_errors=True)
            os.close(lock)
