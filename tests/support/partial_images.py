"""A published image whose disk is read on demand, and what reads it in tests."""

import hashlib
import io
import json
import socket
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from boincvm.image.delivery import keys
from boincvm.image.delivery.blocks import write_blocks
from boincvm.image.delivery.index import INDEX, SIGNATURE, Blocks, Index, Start, Version
from boincvm.image.delivery.start_file import write_start
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, decode_manifest
from boincvm.image.store import ImageStore
from support.packed_images import manifest_of
from support.versions import noise

BLOCK = 4096
COUNT = 256
"""Blocks of the disk that have content of their own."""


def content(version: int = 0) -> bytes:
    """Return a raw disk: noise, zeros, blocks that are there twice, and some that shrink."""
    blocks = [noise(f"on demand {number}", BLOCK) for number in range(COUNT)]
    blocks[50] = noise(f"version {version}", BLOCK)
    text = [f"block {number} ".encode().ljust(BLOCK, b".") for number in range(COUNT)]
    return b"".join([*blocks, bytes(64 * BLOCK), *blocks[10:20], *text])


def write_disk(path: Path, raw: bytes) -> None:
    """Write a qcow2 file of a disk that has the content `raw`."""
    source = path.with_name("raw")
    source.write_bytes(raw)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, path]
    subprocess.run(convert, check=True, capture_output=True, timeout=60)
    source.unlink()


def build_partial(store: ImageStore, name: str, version: int = 0) -> str:
    """Put an image with a real qcow2 disk into the store; return its digest."""
    directory = store.builds / f"object-{name}-{version}"
    directory.mkdir(parents=True)
    write_disk(directory / ROOT, content(version))
    files = {
        INITRD: noise(f"initrd {version}", 3000),
        KERNEL: noise("kernel", 5 * BLOCK),
        ROOT: (directory / ROOT).read_bytes(),
    }
    manifest = manifest_of(files)
    for file, data in {**files, MANIFEST: manifest.encode()}.items():
        (directory / file).write_bytes(data)
    return store.publish(name, directory, manifest)


def served_node(connection: socket.socket, disk_format: str = "raw") -> str:
    """Return how QEMU's programs name the disk that is served over `connection`."""
    server = {"type": "fd", "str": str(connection.fileno())}
    file = {"driver": "nbd", "server": server, "export": "root"}
    node = {"driver": disk_format, "read-only": True, "file": {**file, "read-only": True}}
    return f"json:{json.dumps(node)}"


def root_of_object(store: ImageStore, digest: str) -> Path:
    return store.root / "objects" / digest / ROOT


def publish_start(image: Path, name: str, www: Path, key: Path) -> str:
    """Publish what is needed to run the image in the directory `image` on demand, with little work.

    Returns its digest.
    """
    manifest = decode_manifest((image / MANIFEST).read_bytes(), image)
    version = Version(manifest.digest, manifest.architecture, manifest.size, 1, "0" * 64)
    (www / "images").mkdir()
    blocks = www / version.blocks_name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("boincvm.image.delivery.blocks._deflated", _stored)
        patch.setattr("boincvm.image.delivery.start_file._PRESET", 0)
        with blocks.open("xb") as stream:
            packed_blocks = write_blocks(image, manifest, io.BytesIO(), stream)
        with (www / version.start_name).open("xb") as stream:
            write_start(image, manifest, packed_blocks, stream)
    content = (www / version.start_name).read_bytes()
    version = replace(
        version,
        packed_size=blocks.stat().st_size,
        blocks=Blocks(blocks.stat().st_size, 1, "0" * 64),
        start=Start(len(content), hashlib.sha256(content).hexdigest()),
    )
    index = Index(1, {name: (version,)}).encode()
    (www / INDEX).write_bytes(index)
    (www / SIGNATURE).write_bytes(keys.sign(key, index))
    return manifest.digest


def _stored(data: bytes) -> bytes:
    """Return `data` in the format of what is compressed, in no time."""
    deflate = zlib.compressobj(0, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()
