"""Locks on Linux and macOS: flock(2), or fcntl(2) where BOINC uses it; import it via `locks`."""

import errno
import fcntl
import os
import stat
import sys
from pathlib import Path

from boincvm.host.files import open_descriptor

assert sys.platform != "win32"


ARE_INHERITED = True
"""A child process that inherits a descriptor holds its lock, too."""


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Try to lock until the descriptor is closed; return False if another process has the lock."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(descriptor: int, *, shared: bool = False) -> None:
    """Wait for the lock and hold it until the descriptor is closed. Raises OSError."""
    fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


def remove_locked_file(path: Path, descriptor: int) -> None:
    """Remove a file that `descriptor` locks, and close that. Raises OSError."""
    try:
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def remove_locked_directory(path: Path, descriptor: int) -> None:
    """Remove a directory, with all in it, that `descriptor` locks; and close that.

    What cannot be removed stays.
    """
    try:
        path.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        import shutil  # rarely needed; importing it takes as long as the rest of the run

        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def open_lockable_directory(path: Path) -> int:
    """Open a directory that can itself be locked. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def is_at(descriptor: int, directory: Path) -> bool:
    """Tell whether `open_lockable_directory` still opens what it opened. Raises OSError."""
    return os.path.samestat(os.fstat(descriptor), directory.stat())


def close_directory_lock(descriptor: int, directory: Path) -> None:
    """Close what `open_lockable_directory` has opened."""
    os.close(descriptor)


def lock_slot_file(path: Path) -> int | None:
    """Lock the file by which a BOINC app reserves its slot, and return its descriptor.

    It is an fcntl(2) write lock on the whole file, which the kernel releases when the process ends.
    Returns None if another process holds it. Raises OSError.
    """
    # If it is a FIFO or a device, opening it must not block.
    descriptor = open_descriptor(path, "a", follow_links=False, wait=False, permissions=0o644)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_at(descriptor, path):  # it was removed in the meantime
            os.close(descriptor)
            return None
    except OSError as error:
        if error.errno == errno.ENOSYS:  # a file system without locks: BOINC continues, too
            return descriptor
        os.close(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return None
        raise
    return descriptor


def release_slot_file(path: Path, descriptor: int) -> None:
    """Release the lock and remove the file. Raises OSError."""
    # Remove it while it is locked: nobody may lock a file that is about to be removed.
    try:
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
