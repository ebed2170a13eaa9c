"""Files of which most is a hole."""

from __future__ import annotations

import os


def make_sparse_file(path: str, size: int, pieces: list[tuple[int, bytes]]) -> None:
    """A new file of `size` bytes; `pieces`: what is where in it.

    Raises OSError, FileExistsError among them.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for offset, data in pieces:
            os.pwrite(descriptor, data, offset)
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
