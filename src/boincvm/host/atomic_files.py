"""Small files of which, whatever happens, either the former or the new content is there."""

import os
from contextlib import suppress
from pathlib import Path

from boincvm.host.files import create_new, sync_directory


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replace the content of `path` by `content`, a text as UTF-8; it is on the disk then.

    One process at a time may write it. Raises OSError; then nothing has changed.
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
        with suppress(OSError):  # it may be what was in the way
            temporary.unlink()
        raise
    sync_directory(path.parent)
