"""Verify that an image still has the contents that its digest stands for.

Hashing an image takes a good part of a second, too long for each run. So a sound image is
remembered with the identity of each file (size, times, inode), and hashed again only when an
identity has changed. An attacker who can set ctime back can also alter this program.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.errors import ImageDamagedError
from boincvm.host.own_files import make_directory, open_own
from boincvm.image.filenames import FILES, ON_DEMAND, ROOT
from boincvm.paths import cache_directory

if TYPE_CHECKING:
    from boincvm.image.manifest import ContentFile, Manifest

Identity = dict[str, list[int]]
_MOST_BYTES = 1 << 16
_SIZE = 2
"""The position of a file's size in its identity."""


def is_partial(directory: Path) -> bool:
    """Tell whether the image's root disk is read on demand."""
    return (directory / ON_DEMAND).exists()


def files_of(directory: Path) -> tuple[str, ...]:
    """Return the names of the files that are not altered once they are there."""
    if not is_partial(directory):
        return FILES
    return (*(name for name in FILES if name != ROOT), ON_DEMAND)


def _identity(directory: Path) -> Identity:
    """Return the identities of the image's files. Raises ImageDamagedError if one is missing."""
    identity: Identity = {}
    for name in files_of(directory):
        path = directory / name
        try:
            status = path.stat()
        except OSError as error:
            raise ImageDamagedError(f"{path} of the image cannot be read: {error}") from error
        identity[name] = [
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        ]
    return identity


def _stamp_path(digest: str) -> Path:
    return cache_directory() / "verified" / f"{digest}.json"


def is_remembered(directory: Path, digest: str) -> bool:
    """Tell whether the files in `directory` were found sound and have not been touched since.

    Raises HostError if another user could have forged that.
    """
    try:
        with open_own(_stamp_path(digest)) as file:
            return bool(json.loads(file.read(_MOST_BYTES)) == _identity(directory))
    except (OSError, ValueError, RecursionError, ImageDamagedError):
        return False  # an unreadable stamp counts as none; `verify` reports any damage


def remember(directory: Path, manifest: Manifest) -> None:
    """Record that the files in `directory` are sound as they are now."""
    digest = manifest.digest
    stamp = _stamp_path(digest)
    temporary = stamp.with_name(f"{stamp.name}.{os.getpid()}")
    # The stamp only saves time: a cache that cannot be written must not stop a run.
    with suppress(OSError):
        make_directory(stamp.parent)
        try:
            temporary.touch(mode=0o600)  # whatever the umask
            temporary.write_text(json.dumps(_identity(directory)))
            temporary.replace(stamp)
        finally:
            temporary.unlink(missing_ok=True)


def forget(digest: str) -> None:
    """Remove the stamp of an image that is being removed."""
    with suppress(OSError):
        _stamp_path(digest).unlink(missing_ok=True)


def verify(directory: Path, manifest: Manifest) -> None:
    """Check that all files are as they were built, but for a root disk that is read on demand.

    Raises ImageDamagedError, naming the file.
    """
    before = _identity(directory)
    if is_remembered(directory, manifest.digest):
        return
    for file in manifest.files:
        if file.name not in before:
            continue
        path = directory / file.name
        size = before[file.name][_SIZE]
        if size != file.size:
            raise ImageDamagedError(
                f"{path} of the image has {size} bytes, not {file.size} as when it was built"
            )
        found = _sha256(path)
        if found != file.sha256:
            raise ImageDamagedError(
                f"{path} of the image was altered: its SHA-256 is {found[:12]}…, "
                f"not {file.sha256[:12]}…"
            )
    if _identity(directory) == before:
        remember(directory, manifest)


def is_file(path: Path, file: ContentFile) -> bool:
    """Tell whether the file `path` has the content of the image's `file`. Raises OSError."""
    return path.stat().st_size == file.size and _sha256(path) == file.sha256


def _sha256(path: Path) -> str:
    import hashlib  # not needed for a remembered image

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
