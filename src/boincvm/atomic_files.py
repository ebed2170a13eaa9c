"""Small files of which, whatever happens, either the former or the new content is there."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> None:
    """`content`, a text as UTF-8, becomes that of `path`, on the disk when this returns.

    One process at a time may write it. Raises OSError; then nothing has changed.
    """
    data = content.encode(errors="replace") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """What was made, renamed or removed in the directory stays so. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
