"""Packed images of small files, member by member."""

import hashlib
import io
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

from boincvm.hypervisor.qcow2 import write_overlay
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, ContentFile, Manifest, Recipe
from boincvm.image.store import ImageStore


def disk(content: bytes) -> bytes:
    """Return a qcow2 file with nothing but `content` after its tables."""
    with tempfile.TemporaryDirectory() as directory:
        write_overlay(Path(directory, "disk"), 1 << 30)
        return Path(directory, "disk").read_bytes() + content


CONTENTS = {
    INITRD: b"initrd" * 100,
    KERNEL: bytes(3 << 20) + b"kernel",  # several pieces, and well compressed
    ROOT: disk(hashlib.shake_128(b"root").digest(512 * 700)),  # no padding, not to be compressed
}
Member = tuple[tarfile.TarInfo, bytes]


def manifest_of(contents: dict[str, bytes]) -> Manifest:
    return Manifest(
        architecture="amd64",
        recipe=Recipe(1, "bookworm", (), "0" * 64),
        kernel_release="6.1.0",
        agent_version="1",
        agent_sha256="1" * 64,
        packages=(),
        files=tuple(
            ContentFile(name, len(content), hashlib.sha256(content).hexdigest())
            for name, content in contents.items()
        ),
    )


def publish_odd(store: ImageStore, name: str, oddity: str) -> None:
    """Publish an image whose manifest nobody else takes: `spaced`, or with an `accent`."""
    directory = store.builds / "object"
    directory.mkdir(parents=True)
    manifest = manifest_of(CONTENTS)
    if oddity == "accent":
        recipe = manifest.recipe
        recipe = replace(recipe, own_files=("/opt/donn\u00e9es:" + "0" * 64,))
        manifest = replace(manifest, recipe=recipe)
    for file, data in {**CONTENTS, MANIFEST: manifest.encode()}.items():
        (directory / file).write_bytes(data)
    digest = store.publish(name, directory, manifest)
    if oddity == "spaced":
        objects, text = store.root / "objects", manifest.encode() + b" "
        spaced = hashlib.sha256(text).hexdigest()
        (objects / digest).rename(objects / spaced)
        path = objects / spaced / MANIFEST
        path.unlink()
        path.write_bytes(text)
        (store.root / "names" / name).write_text(spaced + "\n")


def publish(
    store: ImageStore,
    name: str = "base",
    content: bytes = b"",
    kernel: bytes = CONTENTS[KERNEL],
) -> str:
    """Publish an image, which `content` makes different from others."""
    directory = store.builds / "object"
    directory.mkdir(parents=True)
    contents = {**CONTENTS, INITRD: CONTENTS[INITRD] + content, KERNEL: kernel}
    manifest = manifest_of(contents)
    for file, data in {**contents, MANIFEST: manifest.encode()}.items():
        (directory / file).write_bytes(data)
    return store.publish(name, directory, manifest)


def member(name: str, content: bytes, **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o444
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def members() -> list[Member]:
    """Return the members of a packed image."""
    files = {MANIFEST: manifest_of(CONTENTS).encode(), **CONTENTS}
    return [member(name, content) for name, content in files.items()]


def tar(members: list[Member]) -> bytes:
    archive = io.BytesIO()
    for info, content in members:
        archive.write(info.tobuf(tarfile.USTAR_FORMAT))
        archive.write(content + bytes(-len(content) % 512))
    return archive.getvalue() + bytes(1024)


def state(store: ImageStore) -> list[str]:
    """Return all files and directories of the store but the locks."""
    found = (str(path.relative_to(store.root)) for path in store.root.rglob("*"))
    return sorted(path for path in found if path not in ("lock", "unpack.lock"))
