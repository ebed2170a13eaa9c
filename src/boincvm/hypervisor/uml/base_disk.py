"""Raw copies of images' root disks, which User-mode Linux reads beneath each machine's own disk.

    cache/uml/NAME.raw    one root disk, read-only; NAME changes whenever the image's file does
    cache/uml/lock        held by whoever makes one

A User-mode Linux reads no qcow2. Its own overlays (COW files) take no time to make, but what lies
beneath them has to be raw: it is written once for each image. Nobody's machine ends when a copy is
removed, for it holds the file open.
"""

import os
import struct
from pathlib import Path

from boincvm.host import locks
from boincvm.host.files import open_descriptor, set_mode, write_at
from boincvm.host.own_files import check_directory, make_directory
from boincvm.hypervisor import qcow2
from boincvm.paths import cache_directory

_MOST_KEPT = 4
"""Copies that are kept, those made last. (Their times must not change: see `write_overlay`.)"""
_SUFFIX = ".raw"

# struct cow_header_v3 of the kernel's block device (arch/um/drivers/cow_user.c), big-endian: magic,
# version, the time and size of what lies beneath, sector size, alignment, format, its path.
_COW = ">IIIQIII4096s"
_MAGIC, _VERSION, _SECTOR, _ALIGNMENT, _BITMAP = 0x4F4F4F4D, 3, 512, 4096, 1


def open_base(root: Path, disk_format: str) -> int:
    """Return a descriptor of the raw copy of `root`, which is made if it is not there.

    Raises OSError, HostError, DiskRefusedError.
    """
    directory = check_directory(cache_directory()) / "uml"
    status = root.stat()
    name = f"{status.st_dev:x}-{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    path = directory / f"{name}{_SUFFIX}"
    try:
        return open_descriptor(path, follow_links=False)
    except FileNotFoundError:
        pass
    make_directory(directory)
    with locks.exclusive(directory / "lock"):
        if not path.exists():
            _make(root, disk_format, path)
            _remove_old(directory)
        return open_descriptor(path, follow_links=False)


def write_overlay(target: int, base: int, base_path: str) -> None:
    """Make the new file with the descriptor `target` a COW file over `base`.

    `base_path`: where the kernel finds the file with the descriptor `base`; it checks its size and
    time of change. Raises OSError.
    """
    status = os.fstat(base)
    size = status.st_size
    header = struct.pack(
        _COW,
        *(_MAGIC, _VERSION, int(status.st_mtime) & 0xFFFFFFFF, size),
        *(_SECTOR, _ALIGNMENT, _BITMAP, base_path.encode()),
    )
    bitmap = _aligned(len(header))
    data = _aligned(bitmap + -(-size // (8 * _SECTOR)))
    write_at(target, header, 0)
    os.ftruncate(target, data + size)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _make(root: Path, disk_format: str, path: Path) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = open_descriptor(new, "x+", follow_links=False, permissions=0o600)
    try:
        qcow2.write_raw(root, descriptor, disk_format)
        set_mode(descriptor, 0o444)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    new.rename(path)


def _remove_old(directory: Path) -> None:
    copies = sorted(directory.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime)
    for path in copies[:-_MOST_KEPT]:
        path.unlink(missing_ok=True)
