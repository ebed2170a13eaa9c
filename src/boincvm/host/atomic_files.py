"""Atomic replacement of files: either the old or the new content survives a crash."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boincvm.byte_text import decoded
from boincvm.host.files import create_new, sync_directory, sync_file
from boincvm.host.renames import replace

_LONGEST_NAME = 200
"""Bytes of a file's name that its replacement has in its own; most systems allow 255."""


@contextmanager
def replacement(path: Path, *, is_unique: bool = False, is_synced: bool = True) -> Iterator[Path]:
    """Yield the path of a new file that replaces `path` if the block ends without an error.

    `is_unique`: several processes may replace it at the same time. `is_synced`: the content is on
    the disk before the name leads to it. Raises OSError; nothing has changed then.
    """
    name = decoded(os.fsencode(path.name)[:_LONGEST_NAME])
    unique = f".{os.urandom(4).hex()}" if is_unique else ""
    part = path.with_name(f".{name}{unique}.part")
    try:
        yield part
        if is_synced:
            sync_file(part)
        replace(part, path)
    except BaseException:
        with suppress(OSError):  # it may be a directory that was in the way
            part.unlink()
        raise
    if is_synced:
        sync_directory(path.parent)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace the content of `path` by `content` (text as UTF-8) and sync it to the disk.

    Only one process may write it at a time. Raises OSError; nothing has changed then.
    """
    data = content.encode(errors="replace") if isinstance(content, str) else content
    with replacement(path) as part, create_new(part) as file:
        file.write(data)
