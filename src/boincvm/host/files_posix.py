"""File descriptors on Linux and macOS; import it through `files`."""

import errno
import os
import sys
from pathlib import Path

assert sys.platform != "win32"

read_at = os.pread
write_at = os.pwrite

_PIECE = 1 << 20
_NOT_BETWEEN_THESE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors of kernels and file systems that leave the copying to us."""
_FLAGS = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "c+": os.O_RDWR | os.O_CREAT,
    "w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}


KEEPS_UNLINKED = True
"""Whether a file can lose its name while processes have it open."""
SYNCS_ALL = True
"""Whether `sync_all` can be called; else each file is to be synced by itself."""


def open_descriptor(
    path: str | bytes | os.PathLike[str],
    mode: str = "r",
    *,
    follow_links: bool = True,
    wait: bool = True,
    permissions: int = 0o666,
    parent: int | None = None,
) -> int:
    """Open `path` and return its descriptor, which children do not inherit.

    `mode` is one of `open`'s, without a letter for text or bytes; "c+" is "r+" that creates a
    missing file. Without `follow_links` a link at the path's end is refused. Without `wait` neither
    opening blocks (for the other end of a FIFO) nor reading and writing. A terminal never becomes
    our controlling terminal. `permissions` are those of a new file, before the umask. `parent` is
    the descriptor of the directory from which the path starts. Raises OSError.
    """
    flags = _FLAGS[mode] | os.O_NOCTTY
    if not follow_links:
        flags |= os.O_NOFOLLOW
    if not wait:
        flags |= os.O_NONBLOCK
    return os.open(path, flags, permissions, dir_fd=parent)


def open_nameless(directory: Path) -> int:
    """Create a nameless file on the disk of `directory`; it vanishes with its last descriptor.

    Raises OSError.
    """
    if sys.platform == "linux":
        return os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
    else:
        import tempfile

        descriptor, path = tempfile.mkstemp(dir=directory)
        os.unlink(path)  # noqa: PTH108
        return descriptor


def copy_range(source: int, offset: int, target: int, at: int, length: int) -> int:
    """Copy up to `length` bytes at `offset` of one file to `at` in another.

    Returns how many bytes were copied, 0 at the file's end. Raises OSError.
    """
    if sys.platform == "linux":
        try:
            return os.copy_file_range(source, target, length, offset, at)
        except OSError as error:
            if error.errno not in _NOT_BETWEEN_THESE:
                raise
    return write_at(target, read_at(source, min(length, _PIECE), offset), at)


def set_mode(descriptor: int, mode: int) -> None:
    """Set the file's permission bits. Raises OSError."""
    os.fchmod(descriptor, mode)


def sync_directory(path: Path) -> None:
    """Sync the directory's entries (new, renamed, removed) to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_to(descriptor: int, user: int) -> None:
    """Make the user with that id the file's owner, which only root can do. Raises OSError."""
    os.fchown(descriptor, user, user)


def sync_all() -> None:
    """Sync everything written to any file so far to the disk."""
    os.sync()


def drop_cached(descriptor: int) -> None:
    """Have the file read from the disk next time, as far as the kernel can be asked to."""
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def free_space(directory: Path) -> int:
    """Return how many bytes this user can still write to the disk of `directory`.

    Raises OSError.
    """
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def has_free_entries(directory: Path) -> bool:
    """Tell whether the disk of `directory` has room for one more file. Raises OSError."""
    status = os.statvfs(directory)
    return status.f_files == 0 or status.f_favail > 0  # 0: it makes them as needed


def allocated_size(status: os.stat_result) -> int:
    """Return how many bytes a file takes on its disk, holes left out."""
    return status.st_blocks * 512
