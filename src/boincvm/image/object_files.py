"""The files of an image's object: their descriptions, and how they are made to last."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from boincvm.errors import ImageDamagedError
from boincvm.host.files import sync_directory
from boincvm.hypervisor.qcow2 import DiskRefusedError, check_disk
from boincvm.image.manifest import MANIFEST, ContentFile, Manifest
from boincvm.image.pack_format import finish_file
from boincvm.image.store import root_of


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


def finish_object(
    directory: Path, manifest: Manifest, damaged: Callable[[str], ImageDamagedError]
) -> None:
    """Check the disk that somebody else has made, and write the manifest beside it, synced.

    Raises what `damaged` makes of the reason for which the disk is refused, OSError.
    """
    root = root_of(directory)
    try:
        check_disk(root)
    except DiskRefusedError as error:
        reason = f"its {root.name} is refused: {error}".replace(f"{directory}{os.sep}", "")
        raise damaged(reason) from error
    with (directory / MANIFEST).open("xb") as stream:
        stream.write(manifest.encode())
        finish_file(stream)
    sync_directory(directory)
