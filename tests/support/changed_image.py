"""A real image with one file more than another, made in seconds: no build."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT
from boincvm.image.object_files import describe
from boincvm.image.store import Image, ImageStore


def publish_changed(image: Image, store: ImageStore, name: str, file: str, content: str) -> str:
    """Put `image` with a new `file` at the top of its root into `store`; return the digest."""
    directory = store.builds / f"object-{name}"
    directory.mkdir(parents=True)
    raw, source = directory / "raw", directory / "source"
    source.write_text(content)
    convert = ["qemu-img", "convert", "-q"]
    for command in (
        [*convert, "-f", "qcow2", "-O", "raw", image.root, raw],
        ["debugfs", "-w", "-R", f"write {source} {file}", raw],
        [*convert, "-f", "raw", "-O", "qcow2", raw, directory / ROOT],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    raw.unlink()
    source.unlink()
    for path in (image.kernel, image.initrd):
        shutil.copyfile(path, directory / path.name)
    files = tuple(describe(directory / part) for part in (INITRD, KERNEL, ROOT))
    manifest = replace(image.manifest, files=files)
    Path(directory, MANIFEST).write_bytes(manifest.encode())
    return store.publish(name, directory, manifest)
