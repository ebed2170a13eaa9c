"""Small images with versions, for tests of delivery."""

import hashlib

from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT
from boincvm.image.store import ImageStore
from support.packed_images import disk, manifest_of

BLOCK = 4096


def noise(seed: str, size: int) -> bytes:
    """Return bytes that cannot be compressed."""
    return hashlib.shake_128(seed.encode()).digest(size)


def contents(version: int) -> dict[str, bytes]:
    """Return an image's files: each version puts some blocks into the middle, and changes others.

    The root disk ends within a block.
    """
    old = [noise(f"block {number}", BLOCK) for number in range(100)]
    for number in range(1, version + 1):
        old[20 + number : 20 + number] = [noise(f"new {number}", BLOCK)] * 2
        old[60] = noise(f"changed {number}", BLOCK)
    body = disk(b"")
    body += bytes(-len(body) % BLOCK) + b"".join(old) + noise("end", 100)
    return {
        INITRD: noise(f"initrd {version}", 3000),
        KERNEL: noise("kernel", 5 * BLOCK),
        ROOT: body,
    }


def build(store: ImageStore, name: str, version: int) -> str:
    """Put a version of an image into the store; return its digest."""
    directory = store.builds / f"object-{name}-{version}"
    directory.mkdir(parents=True)
    files = contents(version)
    manifest = manifest_of(files)
    for file, content in {**files, MANIFEST: manifest.encode()}.items():
        (directory / file).write_bytes(content)
    return store.publish(name, directory, manifest)
