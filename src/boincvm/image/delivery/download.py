"""Downloads single files, which stay until they are complete and used, a week at most."""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.errors import DISK_FULL, HostDiskFullError, ImageDamagedError
from boincvm.host.files import free_space
from boincvm.image.delivery.server import BrokenOffError, RangesIgnoredError, Server
from boincvm.image.progress import Progress
from boincvm.image.store import ImageStore
from boincvm.sizes import format_size

_MARGIN = 16 << 20
"""Bytes of disk that stay free."""
_LONGEST_KEEP = 7 * 86400
"""Seconds that an incomplete download is kept."""
_ATTEMPTS = 5
"""Connections that may break off within one file."""
_PIECE = 1 << 20


def download(
    server: Server, name: str, part: Path, size: int, sha256: str, progress: Progress
) -> None:
    """Download what is missing of a file. A file that is not as its digest says is removed."""
    try:
        is_resumed = part.exists()
        if _complete(server, name, part, size, progress) == sha256:
            return
        part.unlink()
        # What was left of an earlier attempt may be at fault.
        if is_resumed and _complete(server, name, part, size, progress) == sha256:
            return
        part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in DISK_FULL:
            part.unlink(missing_ok=True)  # others need the space more
        raise
    raise ImageDamagedError(
        f"{server.url}/{name} is not what its index says",
        hint="it was altered, or its server is broken; ask who publishes it",
    )


def _complete(server: Server, name: str, part: Path, size: int, progress: Progress) -> str:
    """Complete the file `part` and return its SHA-256. Raises BoincvmError, OSError."""
    with part.open("ab+") as stream:
        digest = hashlib.sha256()
        stream.seek(0)
        have = 0
        while have < size and (piece := stream.read(min(_PIECE, size - have))):
            digest.update(piece)
            have += len(piece)
        stream.truncate(have)
        failures = 0
        while have < size:
            try:
                for piece in server.pieces(name, have, size, size):
                    stream.write(piece)
                    digest.update(piece)
                    have += len(piece)
                    progress.detail(f"{format_size(have)} of {format_size(size)}")
            except RangesIgnoredError:
                stream.truncate(0)
                have, digest = 0, hashlib.sha256()
            except BrokenOffError:
                failures += 1
                if failures == _ATTEMPTS:
                    raise
            stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def retried_pieces(server: Server, name: str, begin: int, end: int, size: int) -> Iterator[bytes]:
    """Read a part of a file, also if the connection breaks off some times."""
    for attempt in range(_ATTEMPTS):
        try:
            for piece in server.pieces(name, begin, end, size):
                begin += len(piece)
                yield piece
        except BrokenOffError:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


@contextmanager
def consumed(part: Path) -> Iterator[None]:
    """Remove a complete download after the block, unless that was interrupted."""
    try:
        yield
    except ImageDamagedError:
        part.unlink(missing_ok=True)
        raise
    part.unlink(missing_ok=True)


def missing_bytes(part: Path, size: int) -> int:
    """Return how many of `size` bytes the incomplete file `part` lacks."""
    return max(0, size - (part.stat().st_size if part.exists() else 0))


def check_space(store: ImageStore, size: int, name: str) -> None:
    """Raise HostDiskFullError if the store's disk has no room for `size` bytes of image `name`."""
    free = free_space(store.root)
    if free < size + _MARGIN:
        raise HostDiskFullError(
            f"image {name} needs {format_size(size + _MARGIN)} of disk space, and {store.root}"
            f" has {format_size(free)}",
            hint="free some space and try again",
        )


def remove_old(downloads: Path) -> None:
    """Remove what nobody has continued for long."""
    for path in downloads.iterdir():
        if path.is_dir():
            shutil.rmtree(path)  # what a killed process has left: we hold the lock
        elif path.stat().st_mtime < time.time() - _LONGEST_KEEP:
            path.unlink()
