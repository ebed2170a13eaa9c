"""Files that vanish, on Windows: on a disk, for none is in memory.

Import it through `memory_files`.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.host.files import open_nameless
from boincvm.host.not_yet import not_yet

assert sys.platform == "win32"


def create(name: str) -> int:
    """Create an empty file that vanishes with its last descriptor. Raises OSError."""
    return open_nameless(Path(tempfile.gettempdir()))


@contextmanager
def for_child(name: str, content: bytes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the path by which a child can read `content`, and no descriptors. Raises OSError.

    The file is removed after the block; if we are killed in it, it is left.
    """
    descriptor, path = tempfile.mkstemp(prefix=f"boincvm-{name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield path, ()
    finally:
        Path(path).unlink(missing_ok=True)


def path_of(descriptor: int) -> str:
    """Return the path by which a child can open the file: another process cannot, on Windows."""
    raise not_yet("files in memory that other processes open")


def copy(path: Path, name: str) -> int:
    """Create a file in memory with the content of `path`, for a guest's memory."""
    raise not_yet("files in memory that other processes open")
