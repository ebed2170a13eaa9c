"""A small image that can be exported: its kernel is an ELF file, and its disk has some content."""

import subprocess

from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest, Recipe
from boincvm.image.object_files import describe
from boincvm.image.store import ImageStore
from support.elf_kernel import an_elf

SIZE = 4 << 20
"""Bytes of the disk."""
WRITTEN = 1 << 20
"""The offset of 64 KiB of the byte 0x12."""
INITRD_CONTENT = b"the initrd" * 100


def publish_small(store: ImageStore, name: str = "small", *, kernel: bytes | None = None) -> str:
    """Put the image into the store; return its digest."""
    store.builds.mkdir(parents=True, exist_ok=True)
    directory = store.builds / "object"
    directory.mkdir()
    raw = directory / "raw"
    raw.write_bytes(bytes(WRITTEN) + b"\x12" * 65536 + bytes(SIZE - WRITTEN - 65536))
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, directory / ROOT]
    subprocess.run(convert, check=True, capture_output=True, timeout=60)
    raw.unlink()
    (directory / KERNEL).write_bytes(an_elf() if kernel is None else kernel)
    (directory / INITRD).write_bytes(INITRD_CONTENT)
    files = tuple(describe(directory / file) for file in (INITRD, KERNEL, ROOT))
    recipe = Recipe(1, "bookworm", (), "g")
    manifest = Manifest("amd64", recipe, "6", "1", "0", (), files, least_memory=64 << 20)
    (directory / MANIFEST).write_bytes(manifest.encode())
    return store.publish(name, directory, manifest)
