"""Is an image still what its digest says?

Hashing an image takes a good part of a second, too long for each run. So what was found sound
is remembered with the identity of each file (size, times, inode), and hashed again only when
an identity has changed. Whoever can set ctime back can also alter this program.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from boincvm.errors import ImageDamagedError
from boincvm.image.manifest import MANIFEST, Manifest
from boincvm.paths import cache_directory

Identity = dict[str, list[int]]


def _identity(directory: Path, manifest: Manifest) -> Identity:
    """Raises ImageDamagedError for a file that is missing or has another size."""
    identity: Identity = {}
    for name, size in [(MANIFEST, None), *((file.name, file.size) for file in manifest.files)]:
        path = directory / name
        try:
            status = path.stat()
        except OSError as error:
            raise ImageDamagedError(f"{path} of the image cannot be read: {error}") from error
        if size is not None and status.st_size != size:
            raise ImageDamagedError(
                f"{path} of the image has {status.st_size} bytes, not {size} as when it was built"
            )
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


def _is_remembered(digest: str, identity: Identity) -> bool:
    try:
        return bool(json.loads(_stamp_path(digest).read_bytes()) == identity)
    except (OSError, ValueError):
        return False  # no stamp that can be read is no stamp


def remember(directory: Path, manifest: Manifest) -> None:
    """Note that the files in `directory` are sound as they are now."""
    digest = manifest.digest
    stamp = _stamp_path(digest)
    temporary = stamp.with_name(f"{stamp.name}.{os.getpid()}")
    # The stamp only saves time: a cache that cannot be written must not stop a run.
    with suppress(OSError):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(_identity(directory, manifest)))
        temporary.replace(stamp)


def forget(digest: str) -> None:
    """Drop the stamp of an image that goes."""
    with suppress(OSError):
        _stamp_path(digest).unlink(missing_ok=True)


def verify(directory: Path, manifest: Manifest) -> None:
    """Raises ImageDamagedError, naming the file, unless all files are as they were built."""
    before = _identity(directory, manifest)
    if _is_remembered(manifest.digest, before):
        return
    for file in manifest.files:
        path = directory / file.name
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != file.sha256:
            raise ImageDamagedError(
                f"{path} of the image was altered: its SHA-256 is {found[:12]}…, "
                f"not {file.sha256[:12]}…"
            )
    if _identity(directory, manifest) == before:
        remember(directory, manifest)
