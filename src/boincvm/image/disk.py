"""The root disk: a tree becomes an ext4 file system in a qcow2 file, reproducibly."""

import os
import struct
from pathlib import Path

from boincvm.errors import ImageBuildError
from boincvm.image.tools import run_tool
from boincvm.image.tree import Attributes, Tree

EPOCH = 1704067200
"""The time of all files that do not keep their own: 2024-01-01, in seconds since 1970, before any
build."""

SIZE = 8 << 30
"""Size in bytes of the disk as the guest sees it. Empty space takes none on the host."""

_UUID = "7b2f4a86-94c1-4f5e-8d0e-3f6f2f9b6a10"
_FEATURES = ",".join(
    [
        "none",
        *("dir_index", "dir_nlink", "ext_attr", "extent", "extra_isize", "filetype", "flex_bg"),
        *("64bit", "resize_inode", "huge_file", "large_file", "metadata_csum", "sparse_super"),
        "has_journal",
    ]
)
_JOURNAL = 4
"""MiB, the least that mke2fs makes. Only machines that may boot from their disk again use it: see
hypervisor/kernel_arguments.py. While it is empty it takes one block of the image."""

_SUPERBLOCK = 1024
_SUPERBLOCK_MAGIC = 0xEF53
_LATEST = (1 << 31) - 1
"""The latest time that a file keeps: for later ones, ext4 needs bits that debugfs may not set."""
_LONGEST_NAME = 4096
"""Bytes of a path; debugfs reads lines of 8 KiB."""
_TIMES = ("atime", "ctime", "mtime", "crtime")


def write_root_disk(tree: Tree, target: Path, size: int = SIZE) -> None:
    """Write the tree as a qcow2 disk to `target`, whose directory briefly holds the raw disk.

    `size`: bytes, as the guest sees it. Raises ImageBuildError.
    """
    raw = target.with_suffix(".raw")
    with raw.open("wb") as stream:
        stream.truncate(size)
    try:
        _make_file_system(tree, raw)
        _make_reproducible(tree, raw)
        # `a:b` would be a protocol for qemu-img.
        paths = (raw.absolute(), target.absolute())
        run_tool(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", *paths])
    finally:
        raw.unlink()


def _environment() -> dict[str, str]:
    return {
        "SOURCE_DATE_EPOCH": str(EPOCH),
        "E2FSPROGS_FAKE_TIME": str(EPOCH),
        "MKE2FS_CONFIG": os.devnull,  # the host's defaults must not show
    }


def _make_file_system(tree: Tree, raw: Path) -> None:
    run_tool(
        [
            *("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384"),
            *("-m", "0", "-L", "boincvm-root", "-U", _UUID, "-O", _FEATURES),
            *("-J", f"size={_JOURNAL}"),
            *(
                "-E",
                f"hash_seed={_UUID},assume_storage_prezeroed=1,resize=268435456,root_owner=0:0",
            ),
            *("-d", tree.directory, raw),
        ],
        environment=_environment(),
    )


def _make_reproducible(tree: Tree, raw: Path) -> None:
    """Replace what mke2fs took from this computer.

    Sets times and owners of all files, and the special modes and owners that the tree could not
    show.
    """
    script = []
    for inode in range(1, _used_inodes(raw) + 1):
        script += [f"sif <{inode}> {name} @{EPOCH}" for name in _TIMES]
        script += [f"sif <{inode}> uid 0", f"sif <{inode}> gid 0"]
    for name, time in sorted(tree.times.items()):
        if _is_plain(name):  # else it has the time of all others
            script.append(f'sif "/{name}" mtime @{min(max(time, 0), _LATEST)}')
    for name, attributes in sorted(tree.special.items()):
        script += _special(tree, name, attributes)
    commands = raw.with_suffix(".commands")
    commands.write_text("".join(f"{line}\n" for line in script))
    try:
        run_tool(["debugfs", "-w", "-f", commands, raw], environment=_environment())
    finally:
        commands.unlink()


def _special(tree: Tree, name: str, attributes: Attributes) -> list[str]:
    if not _is_plain(name):
        raise ImageBuildError(
            "a file that has special permissions or another owner than root has an invalid name:"
            f" {name[:200]!a}"
        )
    kind = tree.path(name).lstat().st_mode & ~0o7777
    return [
        f'sif "/{name}" mode 0{kind | attributes.mode:o}',
        f'sif "/{name}" uid {attributes.user}',
        f'sif "/{name}" gid {attributes.group}',
    ]


def _is_plain(name: str) -> bool:
    """Tell whether debugfs understands the name."""
    return name.isprintable() and '"' not in name and len(os.fsencode(name)) <= _LONGEST_NAME


def _used_inodes(raw: Path) -> int:
    """Count the used inodes.

    mke2fs hands them out in ascending order, from the first one (ext4 superblock, kernel's
    Documentation/filesystems/ext4/super.rst).
    """
    with raw.open("rb") as stream:
        stream.seek(_SUPERBLOCK)
        superblock = stream.read(1024)
    (magic,) = struct.unpack_from("<H", superblock, 0x38)
    if magic != _SUPERBLOCK_MAGIC:
        raise ImageBuildError("mke2fs did not make an ext4 file system")
    total, free = (
        struct.unpack_from("<I", superblock, 0)[0],
        struct.unpack_from("<I", superblock, 0x10)[0],
    )
    return int(total) - int(free)
