"""File trees by directory handles on Windows, not implemented yet; import it through `filetree`."""

import os
from collections.abc import Generator, Iterator

from boincvm.host.not_yet import not_yet
from boincvm.tree_entries import Entry, clamp_time

_WHAT = "trees of files that are safe against links"


def open_directory(path: str | os.PathLike[str]) -> int:
    """Open the directory `path` as a base for others."""
    raise not_yet(_WHAT)


def rename(name: bytes, new: bytes, parent: int) -> None:
    """Rename an entry of the directory `parent`."""
    raise not_yet(_WHAT)


def unlink(name: bytes, parent: int) -> None:
    """Remove a file or link from the directory `parent`."""
    raise not_yet(_WHAT)


def remove_tree(name: bytes, parent: int) -> None:
    """Remove `name` and everything beneath it from the directory `parent`."""
    raise not_yet(_WHAT)


def open_parent(root: int, parts: list[bytes], *, create: bool = False) -> int:
    """Open the directory that holds the last of `parts`, beneath the directory `root`."""
    raise not_yet(_WHAT)


def open_file(root: int, path: bytes) -> int:
    """Open the regular file `path` beneath `root` for reading."""
    raise not_yet(_WHAT)


def walk(root: int, path: bytes) -> Generator[tuple[Entry, int], None, None]:
    """Yield the entry at `path` beneath `root` and all beneath it."""
    raise not_yet(_WHAT)


def extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the whole file as one part: no file that we make on Windows has holes."""
    if size:
        yield 0, size


def set_time(
    where: int | bytes | os.PathLike[str],
    modified: int | None,
    *,
    parent: int | None = None,
) -> None:
    """Set the time of the file `where`; links, and errors of the file system, are ignored."""
    if modified is None:
        return
    if parent is not None or isinstance(where, int):
        raise not_yet(_WHAT)
    times = (clamp_time(modified), clamp_time(modified))
    try:
        if not os.path.islink(where):
            os.utime(where, ns=times)
    except OSError:
        pass


class TreeWriter:
    """Writes the entries of a tree as they come."""

    def __init__(
        self,
        parent: int,
        name: bytes,
        *,
        maximum_bytes: int,
        maximum_entries: int = 1_000_000,
        nameless: bool = False,
    ) -> None:
        raise not_yet(_WHAT)

    def add(self, entry: Entry) -> None:
        """Begin the next file, or make a directory or link."""
        raise not_yet(_WHAT)

    def descriptor_for(self, offset: int, length: int) -> int:
        """Return the current file's descriptor."""
        raise not_yet(_WHAT)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write `data` at `offset` bytes into the current file."""
        raise not_yet(_WHAT)

    def empty_file(self) -> None:
        """Make the current file a hole of its size, as it was at first."""
        raise not_yet(_WHAT)

    def finish(self) -> None:
        """Finish the tree."""
        raise not_yet(_WHAT)

    def close(self) -> None:
        """Close the handles."""
        raise not_yet(_WHAT)
