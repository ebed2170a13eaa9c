"""Files in memory on Windows, not implemented yet; import it through `memory_files`."""

from pathlib import Path

from boincvm.host.not_yet import not_yet

_WHAT = "files in memory"


def create(name: str) -> int:
    """Create an empty file that vanishes with its last descriptor."""
    raise not_yet(_WHAT)


def path_of(descriptor: int) -> str:
    """Return the path by which a child can open the file."""
    raise not_yet(_WHAT)


def copy(path: Path, name: str) -> int:
    """Create a file in memory with the content of `path`."""
    raise not_yet(_WHAT)
