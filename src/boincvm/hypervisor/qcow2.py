"""qcow2 files, as far as a machine needs them: an image's size, and an empty overlay over it.

Format: QEMU's docs/interop/qcow2.txt. An overlay with nothing in it is a header and three
short tables, written in less time than it takes to start `qemu-img`.
"""

import os
import struct
from pathlib import Path

from boincvm.sparse_files import make_sparse_file

MAGIC = b"QFI\xfb"
CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
_PER_L2_TABLE = CLUSTER // 8 * CLUSTER
"""Bytes of the disk that one entry of the L1 table stands for."""
_FORMAT_EXTENSION = 0xE2792ACA
_HEADER_LENGTH = 104
_REFCOUNT_TABLE, _REFCOUNT_BLOCK, _L1_TABLE = (CLUSTER * place for place in (1, 2, 3))
_LONGEST_NAME = 1023


def virtual_size(path: Path) -> int:
    """Bytes of the disk that the file `path` holds. Raises OSError, ValueError."""
    with path.open("rb") as image:
        header = image.read(32)
    if len(header) < 32 or not header.startswith(MAGIC):
        raise ValueError(f"{path} is no qcow2 file")
    return int(struct.unpack_from(">Q", header, 24)[0])


def header_of(
    backing: Path,
    size: int,
    l1_entries: int,
    l1_table: int,
    refcount_table: int,
    refcount_clusters: int,
) -> bytes:
    """The first cluster's beginning, for a disk of `size` bytes over `backing`, also qcow2; the
    tables' places are offsets. Raises ValueError for a name that is too long."""
    name = os.fsencode(backing)
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"{backing} is too long a name for qcow2")
    extensions = struct.pack(">II8sII", _FORMAT_EXTENSION, 5, b"qcow2", 0, 0)
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(MAGIC, 3),
        *(_HEADER_LENGTH + len(extensions), len(name)),
        *(CLUSTER_BITS, size, 0),  # no encryption
        *(l1_entries, l1_table),
        *(refcount_table, refcount_clusters),
        *(0, 0),  # no snapshots
        *(0, 0, 0),  # no features that a reader must, may or may not know
        *(4, _HEADER_LENGTH),  # reference counts of 1 << 4 bits
    )
    return header + extensions + name


def overlay(backing: Path, size: int) -> tuple[int, list[tuple[int, bytes]]]:
    """A qcow2 file of `size` bytes that reads as `backing`, also qcow2, until it is written: the
    length of the file, and what is where in it. Raises ValueError for a name that is too long."""
    l1_entries = -(-size // _PER_L2_TABLE)
    clusters = 3 + -(-l1_entries * 8 // CLUSTER)
    header = header_of(backing.absolute(), size, l1_entries, _L1_TABLE, _REFCOUNT_TABLE, 1)
    pieces = [
        (0, header),
        (_REFCOUNT_TABLE, struct.pack(">Q", _REFCOUNT_BLOCK)),
        (_REFCOUNT_BLOCK, struct.pack(">H", 1) * clusters),
    ]
    return clusters * CLUSTER, pieces


def write_overlay(path: Path, backing: Path, size: int) -> None:
    """A new file with an `overlay`.

    Raises OSError, FileExistsError among them, and ValueError for a name that is too long.
    """
    make_sparse_file(str(path), *overlay(backing, size))
