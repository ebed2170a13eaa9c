"""Images as they are shown to people."""

import shlex
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import unquote

from boincvm.errors import ImageDamagedError, ImageMissingError
from boincvm.image.manifest import MANIFEST, Manifest
from boincvm.image.oci.commands import described
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
    in_use_by: tuple[str, ...] = ()
    """Machines that are off, and jobs that can be resumed, which need this content."""
    has_name: bool = True
    """False for what an image of this name was formerly, and is kept because it is in use."""
    is_partial: bool = False
    """Whether only a part of its disk is here, and the rest is read on demand."""

    def as_json(self) -> dict[str, object]:
        return {
            "name": self.name if self.has_name else None,
            "digest": self.digest,
            "size": self.size,
            "packages": self.packages,
            "built": self.built.isoformat(timespec="seconds"),
            "fault": self.fault or None,
            "in_use_by": list(self.in_use_by),
            "former_name": None if self.has_name else self.name,
            "on_demand": self.is_partial,
        }


def list_images(store: ImageStore | None = None) -> list[Listed]:
    """List all images, sorted by name, then what is kept without a name.

    Contents are not hashed, and damage is only reported.
    """
    store = ImageStore() if store is None else store
    owners = store.owners()
    wanted: list[tuple[str, str | None]] = [(name, None) for name in store.names()]
    wanted += [(one.name, one.digest) for one in store.nameless()]
    listed = []
    for name, digest in wanted:
        try:
            with store.open_unverified(name, digest) as image:
                one = _listed(image)
        except ImageDamagedError as error:
            when = datetime.fromtimestamp(0, UTC)
            one = Listed(name, digest or "", 0, 0, when, error.message)
        except ImageMissingError:
            continue  # removed since its name was read
        in_use_by = tuple(owners.get(one.digest, ()))
        listed.append(replace(one, in_use_by=in_use_by, has_name=digest is None))
    return listed


def _listed(image: Image) -> Listed:
    built = (image.directory / MANIFEST).stat().st_mtime
    return Listed(
        name=image.name,
        digest=image.digest,
        size=image.manifest.size,
        packages=len(image.manifest.packages),
        built=datetime.fromtimestamp(built, UTC).astimezone(),
        is_partial=image.is_partial,
    )


def _added(manifest: Manifest) -> list[str]:
    """Return lines on what an image has beside Debian's packages, and where its disk is from."""
    lines = []
    if manifest.recipe.recommends:
        lines.append("            and what the packages recommend")
    if manifest.python_packages:
        lines.append(f"PyPI        {', '.join(manifest.python_packages)}")
    lines += [f"own file    {text.rpartition(':')[0]}" for text in manifest.recipe.own_files]
    if manifest.machine:
        lines.append(f"disk        that of the machine {manifest.machine}")
    if manifest.oci is not None:
        lines.append(f"container   {manifest.recipe.container}")
        lines += [f"  {line}" for line in described(manifest.oci)]
    if manifest.shrunk_from:
        lines.append(f"shrunk from {manifest.shrunk_from}")
    if manifest.shrunk_for:
        lines.append(f"       for  {shlex.join(map(unquote, manifest.shrunk_for))}")
    return lines


def describe(image: Image) -> str:
    """Describe an image in several lines for people."""
    manifest = image.manifest
    requested = ", ".join(manifest.recipe.packages) or "none"
    lines = [
        f"image       {image.name}",
        f"digest      {image.digest}",
        f"directory   {image.directory}",
        f"system      {_system(manifest)}, {manifest.architecture}",
        f"kernel      Linux {manifest.kernel_release}",
        f"agent       {manifest.agent_version}, SHA-256 {manifest.agent_sha256[:12]}",
        f"requested   {requested}",
        *_added(manifest),
        f"memory      {_memory(manifest)}",
        *(["disk        read on demand; only a part is here"] if image.is_partial else []),
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
    # An image may be from anybody: no text of it begins a line, or talks to the terminal.
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def _system(manifest: Manifest) -> str:
    of_debian = f"Debian {manifest.recipe.suite}"
    return of_debian if manifest.oci is None else f"a container's, with a kernel of {of_debian}"


def _memory(manifest: Manifest) -> str:
    if manifest.least_memory is None:
        return "the memory that a machine needs was not measured"
    return f"{format_size(manifest.least_memory)} or more for a machine"
