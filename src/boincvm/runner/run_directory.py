"""A directory for each run, mode 0700, locked while the run lives, removed when it ends.

A run that is killed cannot clean up; the next run removes directories that are not locked.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.errors import DISK_FULL, BoincvmError, HostDiskFullError, HostError
from boincvm.host.locks import (
    lock,
    open_lockable_directory,
    remove_locked_directory,
    try_lock,
)
from boincvm.host.own_files import make_directory
from boincvm.paths import runs_directory


@contextmanager
def run_directory() -> Iterator[Path]:
    """Yield a new, empty directory; remove it afterwards. Raises HostDiskFullError, HostError."""
    try:
        runs = runs_directory()
        make_directory(runs)
        directory, held = _make(runs)
    except (OSError, RuntimeError) as error:  # RuntimeError: this user has no home directory
        raise _no_directory(error) from error
    try:
        yield directory
    finally:
        remove_locked_directory(directory, held)


def _make(runs: Path) -> tuple[Path, int]:
    """Return a new directory and its lock's descriptor; remove what dead runs have left."""
    together = open_lockable_directory(runs)
    try:
        # Held briefly, so that no other run sees a new directory before it is locked.
        lock(together)
        _remove_stale(runs)
        directory = runs / os.urandom(8).hex()
        directory.mkdir(mode=0o700)
        held = _lock(directory)
        if held is None:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked by another process", str(directory))
        return directory, held
    finally:
        os.close(together)


def _lock(directory: Path) -> int | None:
    """Return a descriptor that holds the lock, or None if another process holds it."""
    descriptor = open_lockable_directory(directory)
    if try_lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def remove_stale_runs() -> int:
    """Remove what runs that were killed have left; return how many. Raises HostError, OSError."""
    runs = runs_directory()
    if not runs.is_dir():
        return 0
    together = open_lockable_directory(runs)
    try:
        lock(together)
        return _remove_stale(runs)
    finally:
        os.close(together)


def _remove_stale(runs: Path) -> int:
    removed = 0
    for directory in runs.iterdir():
        try:
            held = _lock(directory)
        except (FileNotFoundError, NotADirectoryError):
            continue  # another run has just ended
        if held is not None:
            remove_locked_directory(directory, held)
            removed += 1
    return removed


def _no_directory(error: OSError | RuntimeError) -> BoincvmError:
    reason = str(error)
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        reason = f"{error.strerror}{where}"
        if error.errno in DISK_FULL:
            return HostDiskFullError(
                f"the host's disk is full: {reason}", hint="free some space and run again"
            )
    return HostError(
        f"there is no directory for the machine: {reason}",
        hint="set BOINCVM_HOME to a directory where you may write",
    )
