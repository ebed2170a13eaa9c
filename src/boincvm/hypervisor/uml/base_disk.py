"""Overlays of User-mode Linux (COW files) over raw copies of images' root disks.

A User-mode Linux reads no qcow2. Its own overlays take no time to make, but what lies beneath them
has to be raw (raw_copies.py).
"""

import os
import struct
from pathlib import Path

from boincvm.host.files import write_at
from boincvm.hypervisor.raw_copies import raw_copy

# struct cow_header_v3 of the kernel's block device (arch/um/drivers/cow_user.c), big-endian: magic,
# version, the time and size of what lies beneath, sector size, alignment, format, its path.
_COW = ">IIIQIII4096s"
_MAGIC, _VERSION, _SECTOR, _ALIGNMENT, _BITMAP = 0x4F4F4F4D, 3, 512, 4096, 1


def open_base(root: Path, disk_format: str) -> int:
    """Return a descriptor of the raw copy of `root`.

    Raises OSError, HostError, DiskRefusedError.
    """
    return raw_copy("uml", root, disk_format)[1]


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
