"""Publish an image, and tell what its name stood for before."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from boincvm.errors import BoincvmError
from boincvm.image.manifest import MANIFEST, Manifest
from boincvm.image.store import ImageStore


@dataclass(frozen=True, slots=True)
class Replaced:
    """An image of other content that had the name."""

    digest: str
    built: datetime
    is_here: bool
    """Whether its content is still here: something runs it, needs it, or it has another name."""

    def as_json(self) -> dict[str, object]:
        return {
            "digest": self.digest,
            "built": self.built.isoformat(timespec="seconds"),
            "removed": not self.is_here,
        }

    def __str__(self) -> str:
        became = "is still in use or has another name" if self.is_here else "has been removed"
        return f"it replaces {self.digest[:12]} of {self.built:%Y-%m-%d %H:%M}, which {became}"


def publish(
    store: ImageStore, name: str, directory: Path, manifest: Manifest
) -> tuple[str, Replaced | None]:
    """Do what `ImageStore.publish` does; return the digest, and what was replaced.

    None: the name was free, its image damaged, or of the same content. Raises UsageError.
    """
    former = _former(store, name)
    digest = store.publish(name, directory, manifest)
    if former is None or former[0] == digest:
        return digest, None
    return digest, Replaced(*former, is_here=former[0] in store.digests())


def _former(store: ImageStore, name: str) -> tuple[str, datetime] | None:
    try:
        with store.open_unverified(name) as image:
            built = (image.directory / MANIFEST).stat().st_mtime
            return image.digest, datetime.fromtimestamp(built, UTC).astimezone()
    except BoincvmError:
        return None  # missing or damaged: building repairs it
