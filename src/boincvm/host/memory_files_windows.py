"""Files that lie in memory alone: not yet on Windows; `memory_files` is the face."""

from pathlib import Path

from boincvm.host.not_yet import not_yet

_WHAT = "files in memory"


def create(name: str) -> int:
    """Create an empty file that goes with its last descriptor."""
    raise not_yet(_WHAT)


def path_of(descriptor: int) -> str:
    """The path by which a child opens the file."""
    raise not_yet(_WHAT)


def copy(path: Path, name: str) -> int:
    """A file in memory with the content of `path`."""
    raise not_yet(_WHAT)
