"""Versions of a small image that boots: the base's disk without what no job of ours needs, and an
app whose tables change from version to version.

It is for User-mode Linux, which brings its own kernel: the image's is a stand-in.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

from boincvm.image.disk import write_root_disk
from boincvm.image.manifest import INITRD, KERNEL, MANIFEST, ROOT, Manifest, Recipe
from boincvm.image.object_files import describe
from boincvm.image.store import ImageStore
from boincvm.image.tree import Tree
from support.elf_kernel import an_elf

_UNNEEDED = (
    *(f"usr/bin/{name}" for name in ("bash", "openssl")),
    *(f"usr/lib/python3.11/{name}" for name in ("unittest", "xml")),
    *("usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/libsqlite3.so.0.8.6"),
    *("usr/sbin", "usr/share"),
)
_TABLE = 512 << 10
"""Bytes of one of the app's tables, which cannot be compressed."""
_TABLES = 8
_CHANGED = {1: 8, 2: 1, 5: 5}
"""How many tables a version changes."""
_PROGRAM = """\
#!/bin/sh
echo version {version}
cat /opt/app/table-* | sha256sum
"""


def _table(version: int, number: int) -> bytes:
    since = max(one for one in _CHANGED if one <= version and number < _CHANGED[one])
    return hashlib.shake_128(f"table {number} of {since}".encode()).digest(_TABLE)


def printed(version: int) -> str:
    """Return what a version's program prints."""
    tables = b"".join(_table(version, number) for number in range(_TABLES))
    return f"version {version}\n{hashlib.sha256(tables).hexdigest()}  -\n"


class AppImages:
    """Makes versions of the image from the base image in the directory `base`."""

    def __init__(self, base: Path, directory: Path) -> None:
        self._base = base
        self._tree = Tree(directory / "tree")
        self._tree.directory.mkdir(parents=True)
        raw = directory / "raw"
        convert = ["qemu-img", "convert", "-q", "-f", "qcow2", "-O", "raw", base / ROOT, raw]
        dump = ["debugfs", "-R", f"rdump / {self._tree.directory}", raw]
        for command in (convert, dump):
            subprocess.run(command, check=True, capture_output=True, timeout=60)
        raw.unlink()
        for path in map(self._tree.directory.joinpath, _UNNEEDED):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def build(self, store: ImageStore, version: int) -> str:
        """Put a version into the store as `app`; return its digest."""
        app = self._tree.directory / "opt/app"
        app.mkdir(parents=True, exist_ok=True)
        (app / "program").write_text(_PROGRAM.format(version=version))
        for number in range(_TABLES):
            (app / f"table-{number}").write_bytes(_table(version, number))
        directory = store.builds / f"object-{version}"
        directory.mkdir(parents=True)
        write_root_disk(self._tree, directory / ROOT)
        (directory / KERNEL).write_bytes(an_elf())
        shutil.copyfile(self._base / INITRD, directory / INITRD)
        files = tuple(describe(directory / name) for name in (INITRD, KERNEL, ROOT))
        recipe = Recipe(1, "bookworm", (), "0" * 64)
        manifest = Manifest("amd64", recipe, "6", "1", "0" * 64, (), files)
        (directory / MANIFEST).write_bytes(manifest.encode())
        return store.publish("app", directory, manifest)
