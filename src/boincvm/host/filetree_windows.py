"""Trees by handles of their directories on Windows: not yet; `filetree` is the face."""

import os
from collections.abc import Generator, Iterator

from boincvm.host.not_yet import not_yet
from boincvm.tree_entries import Entry, clamp_time

_WHAT = "trees of files that are safe against links"


def open_directory(path: str | os.PathLike[str]) -> int:
    """Open the directory `path`, from which others are reached."""
    raise not_yet(_WHAT)


def rename(name: bytes, new: bytes, parent: int) -> None:
    """Rename an entry of the directory `parent`."""
    raise not_yet(_WHAT)


def unlink(name: bytes, parent: int) -> None:
    """Remove a file or link from the directory `parent`."""
    raise not_yet(_WHAT)


def remove_tree(name: bytes, parent: int) -> None:
    """Remove `name` from the directory `parent`, with all beneath it."""
    raise not_yet(_WHAT)


def open_parent(root: int, parts: list[bytes], *, create: bool = False) -> int:
    """The directory that holds the last of `parts`, opened beneath the directory `root`."""
    raise not_yet(_WHAT)


def open_file(root: int, path: bytes) -> int:
    """The regular file `path` beneath `root`, for reading."""
    raise not_yet(_WHAT)


def walk(root: int, path: bytes) -> Generator[tuple[Entry, int], None, None]:
    """The entry at `path` beneath `root`, then all beneath it."""
    raise not_yet(_WHAT)


def extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data: all, for no file that we make there has holes."""
    if size:
        yield 0, size


def set_time(
    place: int | bytes | os.PathLike[str],
    modified: int | None,
    *,
    parent: int | None = None,
) -> None:
    """Set the time of the file of that name; a link, and a file system that will not, are left
    alone."""
    if modified is None:
        return
    if parent is not None or isinstance(place, int):
        raise not_yet(_WHAT)
    times = (clamp_time(modified), clamp_time(modified))
    try:
        if not os.path.islink(place):
            os.utime(place, ns=times)
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
        """Begins the next file, or makes a directory or link."""
        raise not_yet(_WHAT)

    def descriptor_for(self, offset: int, length: int) -> int:
        """The file begun last."""
        raise not_yet(_WHAT)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Puts `data` at `offset` bytes into the file begun last."""
        raise not_yet(_WHAT)

    def finish(self) -> None:
        """All is written."""
        raise not_yet(_WHAT)

    def close(self) -> None:
        """Lets go of what is open."""
        raise not_yet(_WHAT)
