"""Atomic replacement of small files: either the old or the new content survives a crash."""

import os
from contextlib import suppress
from pathlib import Path

from boincvm.host.files import create_new, sync_directory


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace the content of `path` by `content` (text as UTF-8) and sync it to the disk.

    Only one process may write it at a time. Raises OSError; nothing has changed then.
    """
    data = content.encode(errors="replace") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.part")
    try:
        with create_new(temporary) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # it may be a directory that was in the way
            temporary.unlink()
        raise
    sync_directory(path.parent)
