"""Images as they are shown to people."""

from dataclasses import dataclass
from datetime import UTC, datetime

from boincvm.errors import ImageDamagedError, ImageMissingError
from boincvm.image.manifest import MANIFEST, Manifest
from boincvm.image.store import Image, ImageStore
from boincvm.sizes import format_size


@dataclass(frozen=True, slots=True)
class Listed:
    """An image in a list."""

    name: str
    digest: str
    size: int
    """Bytes."""
    packages: int
    built: datetime
    fault: str = ""
    """Empty for an image that can be used."""

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "digest": self.digest,
            "size": self.size,
            "packages": self.packages,
            "built": self.built.isoformat(timespec="seconds"),
            "fault": self.fault or None,
        }


def list_images(store: ImageStore | None = None) -> list[Listed]:
    """List all images, sorted by name. Contents are not hashed, and damage is only reported."""
    store = ImageStore() if store is None else store
    listed = []
    for name in store.names():
        try:
            with store.open_unverified(name) as image:
                listed.append(_listed(image))
        except ImageDamagedError as error:
            listed.append(Listed(name, "", 0, 0, datetime.fromtimestamp(0, UTC), error.message))
        except ImageMissingError:
            continue  # removed since its name was read
    return listed


def _listed(image: Image) -> Listed:
    built = (image.directory / MANIFEST).stat().st_mtime
    return Listed(
        name=image.name,
        digest=image.digest,
        size=image.manifest.size,
        packages=len(image.manifest.packages),
        built=datetime.fromtimestamp(built, UTC).astimezone(),
    )


def describe(image: Image) -> str:
    """Describe an image in several lines for people."""
    manifest = image.manifest
    requested = ", ".join(manifest.recipe.packages) or "none"
    lines = [
        f"image       {image.name}",
        f"digest      {image.digest}",
        f"directory   {image.directory}",
        f"system      Debian {manifest.recipe.suite}, {manifest.architecture}",
        f"kernel      Linux {manifest.kernel_release}",
        f"agent       {manifest.agent_version}, SHA-256 {manifest.agent_sha256[:12]}",
        f"requested   {requested}",
        f"memory      {_memory(manifest)}",
        "files",
    ]
    lines += [
        f"  {file.name:<12} {format_size(file.size):>10}  SHA-256 {file.sha256}"
        for file in manifest.files
    ]
    ran = "was run" if manifest.configured else "was not run"
    lines.append(f"packages    {len(manifest.packages)}; * has a script, which {ran}")
    lines += [
        f"  {'*' if package.scripts else ' '} {package.name} {package.version}"
        for package in manifest.packages
    ]
    return "\n".join(lines)


def _memory(manifest: Manifest) -> str:
    if manifest.least_memory is None:
        return "the memory that a machine needs was not measured"
    return f"{format_size(manifest.least_memory)} or more for a machine"
