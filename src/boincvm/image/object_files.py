"""The files of an image's object: their descriptions, and how they are made to last."""

import hashlib
import os
from pathlib import Path

from boincvm.image.manifest import ContentFile


def describe(path: Path) -> ContentFile:
    """Return a file's name, size and digest. Raises OSError."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return ContentFile(path.name, path.stat().st_size, digest)


def make_durable(directory: Path) -> None:
    """Make the directory's files read-only and sync them.

    So a named image is complete even after a power cut. Raises OSError.
    """
    for path in directory.iterdir():
        path.chmod(0o444)
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
