"""File trees by directory descriptors on Linux and macOS; import it through `filetree`.

No symbolic link is ever followed: every component of a path is opened beneath the one before it.
Host and guest share this file (light imports: it also starts under emulation).
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from boincvm.tree_entries import (
    MAXIMUM_DEPTH,
    Entry,
    UnsafePathError,
    check_link,
    clamp_time,
    components,
    shown,
)

assert sys.platform != "win32"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

TYPE_CHECKING = False  # the guest cannot afford `typing`; type checkers know this name
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


def set_time(
    where: int | bytes | os.PathLike[str],
    modified: int | None,
    *,
    parent: int | None = None,
) -> None:
    """Set the time of a descriptor, or of the name `where` in `parent`, which may be a link.

    Errors of a file system that cannot or will not set it are ignored: the content is what counts.
    """
    if modified is None:
        return
    times = (clamp_time(modified), clamp_time(modified))
    try:
        if isinstance(where, int):
            os.utime(where, ns=times)
        else:
            os.utime(where, ns=times, dir_fd=parent, follow_symlinks=False)
    except OSError:
        pass


def open_directory(path: str | os.PathLike[str]) -> int:
    """Open the directory `path` as a base for others. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def rename(name: bytes, new: bytes, parent: int) -> None:
    """Rename an entry of the directory `parent`, replacing any of the new name. Raises OSError."""
    os.rename(name, new, src_dir_fd=parent, dst_dir_fd=parent)


def unlink(name: bytes, parent: int) -> None:
    """Remove a file or link from the directory `parent`. Raises OSError."""
    os.unlink(name, dir_fd=parent)


def remove_tree(name: bytes, parent: int) -> None:
    """Remove `name` and everything beneath it from the directory `parent`. Raises OSError."""
    import shutil  # rarely needed; imports compression modules

    shutil.rmtree(name, dir_fd=parent)


def open_parent(root: int, parts: list[bytes], *, create: bool = False) -> int:
    """Open the directory that holds the last of `parts`, beneath the directory `root`.

    The caller closes it. Raises UnsafePathError where a component is a link, OSError otherwise.
    """
    current = os.dup(root)
    try:
        for part in parts[:-1]:
            if create:
                try:
                    os.mkdir(part, 0o777, dir_fd=current)
                except FileExistsError:
                    pass
            try:
                below = os.open(part, _DIRECTORY, dir_fd=current)
            except OSError:
                if _is_link(current, part):
                    raise UnsafePathError(
                        f"{shown(part)} in {shown(b'/'.join(parts))} is a symbolic link;"
                        " links are not followed"
                    ) from None
                raise
            os.close(current)
            current = below
    except BaseException:
        os.close(current)
        raise
    return current


def open_file(root: int, path: bytes) -> int:
    """Open the regular file `path` beneath `root` for reading."""
    parts = components(path)
    parent = open_parent(root, parts)
    try:
        return _open_regular(parent, parts[-1] if parts else b".", path)
    finally:
        os.close(parent)


def walk(root: int, path: bytes) -> Generator[tuple[Entry, int], None, None]:
    """Yield the entry at `path` beneath `root` and all beneath it, parents first, sorted by name.

    A file comes with a descriptor that is valid until the next step; others with -1. Raises
    UnsafePathError on anything but files, directories and safe links; OSError.
    """
    parts = components(path)
    parent = open_parent(root, parts)
    try:
        name = parts[-1] if parts else b"."
        if _is_link(parent, name):
            raise UnsafePathError(
                f"{shown(path)} is a symbolic link; links are not followed, name the file itself"
            )
        yield from _walk(parent, name, b"", 0)
    finally:
        os.close(parent)


def _walk(parent: int, name: bytes, path: bytes, depth: int) -> Iterator[tuple[Entry, int]]:
    if depth > MAXIMUM_DEPTH:
        raise UnsafePathError(f"{shown(path)} is more than {MAXIMUM_DEPTH} directories deep")
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=parent)
        check_link(path, target)
        yield Entry("link", path, target=target, modified=clamp_time(status.st_mtime_ns)), -1
    elif stat.S_ISDIR(status.st_mode):
        mode = stat.S_IMODE(status.st_mode) & 0o777
        yield Entry("directory", path, mode, modified=clamp_time(status.st_mtime_ns)), -1
        directory = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            for child in sorted(map(os.fsencode, os.listdir(directory))):
                below = path + b"/" + child if path else child
                yield from _walk(directory, child, below, depth + 1)
        finally:
            os.close(directory)
    else:
        descriptor = _open_regular(parent, name, path or name)
        try:
            status = os.fstat(descriptor)
            mode = stat.S_IMODE(status.st_mode) & 0o777
            modified = clamp_time(status.st_mtime_ns)
            yield Entry("file", path, mode, status.st_size, modified=modified), descriptor
        finally:
            os.close(descriptor)


def _open_regular(parent: int, name: bytes, path: bytes) -> int:
    if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        raise UnsafePathError(f"{shown(path)} is not a regular file")
    # It may have been replaced since: a pipe without a writer must not block us forever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):
            raise UnsafePathError(f"{shown(path)} is not a regular file") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnsafePathError(f"{shown(path)} is not a regular file")
    return descriptor


def _is_link(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of the parts of a file that hold data, skipping holes."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        if end <= start:
            return
        yield start, end - start
        offset = end


def _open_nameless(parent: int) -> int | None:
    """Open a new nameless file in the directory `parent`; return None if it cannot have any."""
    if sys.platform == "linux":
        try:
            return os.open(b".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=parent)
        except OSError as error:
            # Errors of kernels and file systems without this feature.
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
                raise
    return None


class TreeWriter:
    """Writes the entries of a tree as they come, at `name` in the directory `parent`.

    The name must not exist yet. `maximum_bytes` caps the total size of all files, `maximum_entries`
    their number; beyond them UnsafePathError is raised. With `nameless`, a tree that is a single
    file gets its name only in `finish`, where the file system can do that: nothing is left of it if
    this process is killed before.
    """

    def __init__(
        self,
        parent: int,
        name: bytes,
        *,
        maximum_bytes: int,
        maximum_entries: int = 1_000_000,
        nameless: bool = False,
    ) -> None:
        self._parent = os.dup(parent)
        self._name = name
        self._directory = -1
        self._file = -1
        self._size = 0
        self._bytes_left = maximum_bytes
        self._entries_left = maximum_entries
        self._modified: int | None = None
        self._directories: list[tuple[bytes, int, int | None]] = []
        self._begun = False
        self._may_be_nameless = nameless
        self._is_nameless = False

    def add(self, entry: Entry) -> None:
        """Begin the next file, or make a directory or link."""
        self._end_file()
        self._entries_left -= 1
        if self._entries_left < 0:
            raise UnsafePathError("too many files in one tree")
        parts = components(entry.path)
        if self._begun == (not parts) or (parts and self._directory < 0):
            raise UnsafePathError(f"{shown(entry.path)} is out of order in its tree")
        self._begun = True
        if not parts:
            self._make(self._parent, self._name, entry)
            if entry.kind == "directory":
                self._directory = os.open(self._name, _DIRECTORY, dir_fd=self._parent)
            return
        parent = open_parent(self._directory, parts)
        try:
            self._make(parent, parts[-1], entry)
        finally:
            os.close(parent)

    def _make(self, parent: int, name: bytes, entry: Entry) -> None:
        if entry.kind == "directory":
            os.mkdir(name, 0o700, dir_fd=parent)
            self._directories.append((entry.path, entry.mode & 0o777, entry.modified))
        elif entry.kind == "link":
            check_link(entry.path, entry.target)
            os.symlink(entry.target, name, dir_fd=parent)
            set_time(name, entry.modified, parent=parent)
        elif entry.kind == "file":
            if not 0 <= entry.size <= self._bytes_left:
                raise UnsafePathError(f"{shown(entry.path or name)} is larger than is allowed")
            self._bytes_left -= entry.size
            self._file = self._open_new(parent, name)
            self._size = entry.size
            self._modified = entry.modified
            os.fchmod(self._file, entry.mode & 0o777)
            os.ftruncate(self._file, entry.size)
        else:
            raise UnsafePathError(f"{entry.kind[:20]!r} is not a kind of file")

    def _open_new(self, parent: int, name: bytes) -> int:
        if self._may_be_nameless and self._directory < 0:
            descriptor = _open_nameless(parent)
            if descriptor is not None:
                self._is_nameless = True
                return descriptor
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=parent)

    def descriptor_for(self, offset: int, length: int) -> int:
        """Return the current file's descriptor, for writing only `length` bytes at `offset`."""
        if self._file < 0 or offset < 0 or length < 0 or offset + length > self._size:
            raise UnsafePathError("data outside the file it belongs to")
        return self._file

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write `data` at `offset` bytes into the current file."""
        descriptor = self.descriptor_for(offset, len(data))
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            offset += written
            view = view[written:]

    def empty_file(self) -> None:
        """Make the current file a hole of its size, as it was at first."""
        os.ftruncate(self.descriptor_for(0, 0), 0)
        os.ftruncate(self._file, self._size)

    def finish(self) -> None:
        """Finish the tree: set the directories' modes and times, and close the descriptors."""
        try:
            if not self._begun:
                raise UnsafePathError("a tree without any entry")
            if self._is_nameless:
                # linkat(2) by /proc needs no privilege
                os.link(f"/proc/self/fd/{self._file}", self._name, dst_dir_fd=self._parent)
            self._end_file()
            for path, mode, modified in reversed(self._directories):
                parts = components(path)
                base = self._directory if parts else self._parent
                directory = open_parent(base, [*(parts or [self._name]), b""])
                try:
                    os.fchmod(directory, mode)
                    set_time(directory, modified)
                finally:
                    os.close(directory)
        finally:
            self.close()

    def _end_file(self) -> None:
        if self._file >= 0:
            set_time(self._file, self._modified)
            os.close(self._file)
            self._file = -1

    def close(self) -> None:
        """Close the descriptors; what was written stays."""
        self._end_file()
        for descriptor in (self._directory, self._parent):
            if descriptor >= 0:
                os.close(descriptor)
        self._directory = self._parent = -1
