"""File trees by directories that are held open, on Windows; import it through `filetree`.

No link is ever followed: every component of a path is opened, and held, beneath the one before it.
Names that Windows cannot store, or reads in another way, are refused.
"""

import errno
import os
import shutil
import stat
import sys
from collections.abc import Generator, Iterator

from boincvm.host import renames
from boincvm.tree_entries import (
    MAXIMUM_DEPTH,
    Entry,
    UnsafePathError,
    check_link,
    clamp_time,
    components,
    shown,
)

assert sys.platform == "win32"

from boincvm.host.directory_handles_windows import beneath, hold_directory, is_link, path_of
from boincvm.host.files_windows import open_descriptor, resize, write_at

_MODE = 0o755
"""The permissions of all entries for a guest: Windows does not know what is executable in it."""
_NO_PRIVILEGE = 1314
_FIRST_TIME, _LAST_TIME = -11_644_473_600_000_000_000, 1 << 63
"""Nanoseconds since 1970 that NTFS can store: from 1601."""


def open_directory(path: str | os.PathLike[str]) -> int:
    """Open the directory `path` as a base for others. Raises OSError."""
    return hold_directory(os.fspath(path), follow_links=True)


def rename(name: bytes, new: bytes, parent: int) -> None:
    """Rename an entry of the directory `parent`, replacing a file of the new name.

    A directory replaces an empty one, too. Raises OSError, with the errors of Linux if something
    else is in the way, for which Windows has one: access denied.
    """
    source, target = beneath(parent, name), beneath(parent, new)
    _make_way(os.lstat(source), target)
    renames.replace(source, target)


def _make_way(source: os.stat_result, target: str) -> None:
    """Remove an empty directory that a directory replaces. Raises OSError if more is there."""
    try:
        there = os.lstat(target)
    except FileNotFoundError:
        return
    is_directory = stat.S_ISDIR(source.st_mode)
    if not stat.S_ISDIR(there.st_mode) or is_link(there):
        if is_directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), target)
    elif not is_directory:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    elif os.listdir(target):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), target)
    else:
        os.rmdir(target)


def unlink(name: bytes, parent: int) -> None:
    """Remove a file or link from the directory `parent`. Raises OSError."""
    os.unlink(beneath(parent, name))


def remove_tree(name: bytes, parent: int) -> None:
    """Remove `name` and everything beneath it from the directory `parent`. Raises OSError."""
    shutil.rmtree(beneath(parent, name))


def open_parent(root: int, parts: list[bytes], *, create: bool = False) -> int:
    """Open the directory that holds the last of `parts`, beneath the directory `root`.

    The caller closes it. Raises UnsafePathError where a component is a link or has a name that
    Windows cannot store, OSError otherwise.
    """
    current = os.dup(root)
    try:
        for part in parts[:-1]:
            path = beneath(current, part)
            if create:
                try:
                    os.mkdir(path)
                except FileExistsError:
                    pass
            try:
                below = hold_directory(path, follow_links=False)
            except OSError:
                if _is_link_at(path):
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
        if _is_link_at(beneath(parent, name)):
            raise UnsafePathError(
                f"{shown(path)} is a symbolic link; links are not followed, name the file itself"
            )
        yield from _walk(parent, name, b"", 0)
    finally:
        os.close(parent)


def _walk(parent: int, name: bytes, path: bytes, depth: int) -> Iterator[tuple[Entry, int]]:
    if depth > MAXIMUM_DEPTH:
        raise UnsafePathError(f"{shown(path)} is more than {MAXIMUM_DEPTH} directories deep")
    there = beneath(parent, name)
    status = os.lstat(there)
    modified = clamp_time(status.st_mtime_ns)
    if is_link(status):
        if not stat.S_ISLNK(status.st_mode):
            raise UnsafePathError(f"{shown(path)} is a link of Windows' own kind")
        target = os.fsencode(os.readlink(there).replace("\\", "/"))
        check_link(path, target)
        yield Entry("link", path, target=target, modified=modified), -1
    elif stat.S_ISDIR(status.st_mode):
        yield Entry("directory", path, _MODE, modified=modified), -1
        directory = hold_directory(there, follow_links=False)
        try:
            for child in sorted(map(os.fsencode, os.listdir(path_of(directory)))):
                below = path + b"/" + child if path else child
                yield from _walk(directory, child, below, depth + 1)
        finally:
            os.close(directory)
    else:
        descriptor = _open_regular(parent, name, path or name)
        try:
            size = os.fstat(descriptor).st_size
            yield Entry("file", path, _MODE, size, modified=modified), descriptor
        finally:
            os.close(descriptor)


def _open_regular(parent: int, name: bytes, path: bytes) -> int:
    there = beneath(parent, name)
    if is_link(status := os.lstat(there)) or not stat.S_ISREG(status.st_mode):
        raise UnsafePathError(f"{shown(path)} is not a regular file")
    return open_descriptor(there, follow_links=False)


def _is_link_at(path: str) -> bool:
    try:
        return is_link(os.lstat(path))
    except FileNotFoundError:
        return False


def extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the whole file as one part: its holes are read as zeros."""
    if size:
        yield 0, size


def set_time(
    where: int | bytes | os.PathLike[str],
    modified: int | None,
    *,
    parent: int | None = None,
) -> None:
    """Set the time of a descriptor, or of the name `where` in `parent`, unless it is a link.

    Errors of a file system that cannot or will not set it are ignored: the content is what counts.
    """
    if modified is None:
        return
    time = min(max(clamp_time(modified), _FIRST_TIME), _LAST_TIME)
    try:
        if isinstance(where, int):
            path = path_of(where)
        else:
            path = os.fsdecode(where) if parent is None else beneath(parent, where)
        if not _is_link_at(path):
            os.utime(path, ns=(time, time))
    except (OSError, OverflowError):
        pass


class TreeWriter:
    """Writes the entries of a tree as they come, at `name` in the directory `parent`.

    The name must not exist yet. `maximum_bytes` caps the total size of all files, `maximum_entries`
    their number; beyond them UnsafePathError is raised. No file is nameless on Windows.
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
        self._directories: list[tuple[bytes, int | None]] = []
        self._begun = False

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
                path = beneath(self._parent, self._name)
                self._directory = hold_directory(path, follow_links=False)
            return
        parent = open_parent(self._directory, parts)
        try:
            self._make(parent, parts[-1], entry)
        finally:
            os.close(parent)

    def _make(self, parent: int, name: bytes, entry: Entry) -> None:
        path = beneath(parent, name)
        if entry.kind == "directory":
            os.mkdir(path)
            self._directories.append((entry.path, entry.modified))
        elif entry.kind == "link":
            check_link(entry.path, entry.target)
            _make_link(parent, path, entry)
        elif entry.kind == "file":
            if not 0 <= entry.size <= self._bytes_left:
                raise UnsafePathError(f"{shown(entry.path or name)} is larger than is allowed")
            self._bytes_left -= entry.size
            self._file = open_descriptor(path, "x", follow_links=False)
            self._size = entry.size
            self._modified = entry.modified
            resize(self._file, entry.size)
        else:
            raise UnsafePathError(f"{entry.kind[:20]!r} is not a kind of file")

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
            written = write_at(descriptor, view, offset)
            offset += written
            view = view[written:]

    def empty_file(self) -> None:
        """Make the current file one of zeros of its size, as it was at first."""
        resize(self.descriptor_for(0, 0), 0)
        resize(self._file, self._size)

    def finish(self) -> None:
        """Finish the tree: set the directories' times, and close the descriptors."""
        try:
            if not self._begun:
                raise UnsafePathError("a tree without any entry")
            self._end_file()
            for path, modified in reversed(self._directories):
                parts = components(path)
                base = self._directory if parts else self._parent
                directory = open_parent(base, [*(parts or [self._name]), b""])
                try:
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


def _make_link(parent: int, path: str, entry: Entry) -> None:
    """Make a symbolic link, where Windows lets this user make any."""
    for part in components(entry.target.replace(b"../", b"")):
        beneath(parent, part)  # refuses what Windows reads in another way
    try:
        os.symlink(os.fsdecode(entry.target).replace("/", "\\"), path)
    except OSError as error:
        if error.winerror != _NO_PRIVILEGE:
            raise
        raise UnsafePathError(
            f"{shown(entry.path)} is a symbolic link, which Windows lets only some users make"
            " (Developer Mode allows it)"
        ) from None
