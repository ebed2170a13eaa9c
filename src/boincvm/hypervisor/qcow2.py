"""qcow2 files as far as machines need them: checking a disk, and writing an empty overlay.

Format: QEMU's docs/interop/qcow2.txt. A qcow2 file may name other files of the host (a backing
file, an external data file), and QEMU would open them for the guest. So no disk is given to QEMU
before `check_disk` has found that it names none. QEMU is told what lies beneath an overlay with
`-blockdev`; the overlay's header does not say it.

An empty overlay is a header and three short tables, written in less time than it takes to start
`qemu-img`.
"""

import os
import stat
import struct
from array import array
from pathlib import Path
from typing import NamedTuple

from boincvm.host.files import copy_range, open_descriptor, open_regular, read_at, write_at

MAGIC = b"QFI\xfb"
CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
_SECTOR = 512
_PER_L2_TABLE = CLUSTER // 8 * CLUSTER
"""Bytes of the disk that one entry of the L1 table covers."""
_HEADER_LENGTH = 104
_LONGEST_HEADER = 4096
_REFCOUNT_TABLE, _REFCOUNT_BLOCK, _L1_TABLE = (CLUSTER * position for position in (1, 2, 3))
_REFCOUNT_ORDER = 4
"""Reference counts have 1 << 4 bits."""
_MOST_L1_ENTRIES = 1 << 16
"""Enough for a disk of 32 TiB."""
_END, _FEATURE_NAMES = 0, 0x6803F857
_NAMING_EXTENSIONS = {0xE2792ACA: "a backing file", 0x44415441: "an external data file"}
_INCOMPATIBLE = {
    1 << 0: "it was not closed properly",
    1 << 1: "it is marked as corrupt",
    1 << 2: "it names another file as its data file",
}


class DiskRefusedError(ValueError):
    """The file is not allowed as a machine's disk; the text says which file and why."""


def check_disk(path: Path) -> int:
    """Return the size in bytes of the disk in the file `path`, which QEMU may then open.

    It must be a qcow2 file of version 3 as we and `qemu-img` write them, and name no other file: no
    backing file, no external data file, no snapshots, no encryption, no feature that a reader must
    know; its tables lie in the file. No other format is accepted: VMDK, VDI, VHD and VHDX may name
    other files too, and a raw disk could be mistaken for any of these. No link is followed. Raises
    OSError, DiskRefusedError.
    """
    descriptor = open_descriptor(path, follow_links=False, wait=False)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DiskRefusedError(f"{path} is not a regular file")
        return check_header(read_at(descriptor, CLUSTER, 0), status.st_size, str(path))
    finally:
        os.close(descriptor)


def check_root(path: Path, disk_format: str) -> int:
    """Do `check_disk` for an image's root disk, "qcow2" or "raw".

    Raises OSError, DiskRefusedError.
    """
    if disk_format == "qcow2":
        return check_disk(path)
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
    if not size or size % _SECTOR:
        raise DiskRefusedError(f"{path} is not a disk: its size is invalid")
    return size


def check_header(head: bytes, length: int, name: str) -> int:
    """Do `check_disk` for a file of `length` bytes that begins with `head`.

    `head` is its first cluster, or all of it; `name` is for messages. Raises DiskRefusedError.
    """
    if len(head) < _HEADER_LENGTH or not head.startswith(MAGIC):
        raise DiskRefusedError(f"{name} is not a qcow2 file")
    fields = _Header(*struct.unpack_from(_HEADER_FORMAT, head))
    why = _why_not(fields, length) or _why_not_extended(head, fields.header_length)
    if why:
        raise DiskRefusedError(f"{name} may not be a machine's disk: {why}")
    return fields.size


_HEADER_FORMAT = ">4sIQIIQIIQQIIQQQQII"


class _Header(NamedTuple):
    """The fields of a version 3 header, in order."""

    magic: bytes
    version: int
    backing_offset: int
    backing_length: int
    cluster_bits: int
    size: int
    encryption: int
    l1_entries: int
    l1_table: int
    refcount_table: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    compatible: int
    autoclear: int
    refcount_order: int
    header_length: int


def _why_not(header: _Header, length: int) -> str:
    """Return why a file of `length` bytes with that header is refused, or "" if it is not."""
    if header.version != 3:
        return f"it is a qcow2 file of version {header.version}, not 3"
    if header.backing_offset or header.backing_length:
        return "it names another file as its backing file"
    if header.incompatible:
        bit = header.incompatible & -header.incompatible
        return _INCOMPATIBLE.get(bit, "it uses unsupported features")
    if header.snapshots or header.snapshots_offset:
        return "it holds snapshots"
    if header.encryption:
        return "it is encrypted"
    ours = (CLUSTER_BITS, 0, 0, _REFCOUNT_ORDER)
    if (
        header.cluster_bits, header.compatible, header.autoclear, header.refcount_order
    ) != ours:  # fmt: skip
        return "it uses unsupported features"
    needed = -(-header.size // _PER_L2_TABLE)
    if not header.size or header.size % _SECTOR or needed > header.l1_entries:
        return "its size is invalid"
    if header.l1_entries > _MOST_L1_ENTRIES:
        return "it is too large"
    for table, size in (
        (header.l1_table, header.l1_entries * 8),
        (header.refcount_table, header.refcount_clusters * CLUSTER),
    ):
        if not size or table < CLUSTER or table % CLUSTER or table + size > length:
            return "its tables lie outside the file"
    return ""


def _why_not_extended(head: bytes, at: int) -> str:
    """Return why what follows the fields of the header is refused, or "" if it is not.

    The header's extensions begin at the offset `at`; only the names of features are allowed, which
    `qemu-img` writes.
    """
    if not _HEADER_LENGTH <= at <= _LONGEST_HEADER or at % 8 or any(head[_HEADER_LENGTH:at]):
        return "it uses unsupported features"
    while at + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, at)
        at += 8 + length + -length % 8
        if kind == _END:
            return ""
        if kind != _FEATURE_NAMES:
            named = _NAMING_EXTENSIONS.get(kind)
            return f"it names {named}" if named else "it uses unsupported extensions"
    return "its header does not end"


def header_of(
    size: int,
    l1_entries: int,
    l1_table: int,
    refcount_table: int,
    refcount_clusters: int,
) -> bytes:
    """Return the beginning of the first cluster for a disk of `size` bytes.

    The tables' places are offsets in the file.
    """
    header = _Header(
        magic=MAGIC,
        version=3,
        backing_offset=0,
        backing_length=0,
        cluster_bits=CLUSTER_BITS,
        size=size,
        encryption=0,
        l1_entries=l1_entries,
        l1_table=l1_table,
        refcount_table=refcount_table,
        refcount_clusters=refcount_clusters,
        snapshots=0,
        snapshots_offset=0,
        incompatible=0,
        compatible=0,
        autoclear=0,
        refcount_order=_REFCOUNT_ORDER,
        header_length=_HEADER_LENGTH,
    )
    return struct.pack(_HEADER_FORMAT, *header) + struct.pack(">II", _END, 0)


def write_overlay(path: Path, size: int) -> None:
    """Write a new qcow2 file that is an empty overlay of `size` bytes.

    Until it is written to it reads as what QEMU is told lies beneath it. Raises OSError, including
    FileExistsError.
    """
    l1_entries = -(-size // _PER_L2_TABLE)
    clusters = 3 + -(-l1_entries * 8 // CLUSTER)
    header = header_of(size, l1_entries, _L1_TABLE, _REFCOUNT_TABLE, 1)
    descriptor = open_descriptor(path, "x", permissions=0o600)
    try:
        write_at(descriptor, header, 0)
        write_at(descriptor, struct.pack(">Q", _REFCOUNT_BLOCK), _REFCOUNT_TABLE)
        write_at(descriptor, struct.pack(">H", 1) * clusters, _REFCOUNT_BLOCK)
        os.ftruncate(descriptor, clusters * CLUSTER)
    finally:
        os.close(descriptor)


_ENTRIES = CLUSTER // 8
OFFSET = 0x00FFFFFFFFFFFE00
"""The bits of a table entry that hold a cluster's offset."""
IS_ZERO = 1
IS_COMPRESSED = 1 << 62


def table(file: int, offset: int, entries: int) -> "array[int]":
    """Read a table from the file with the descriptor `file`. Raises OSError, DiskRefusedError."""
    data = read_at(file, entries * 8, offset)
    if len(data) != entries * 8:
        raise DiskRefusedError("a table lies outside the file")
    read = array("Q", data)
    read.byteswap()
    return read


def write_raw(path: Path, target: int, disk_format: str = "qcow2") -> int:
    """Write the disk in the file `path` as a raw disk to the new file with the descriptor `target`.

    Unused parts become holes. Returns its size in bytes. Raises OSError, and DiskRefusedError for
    what `check_root` refuses and for a disk with compressed parts.
    """
    size = check_root(path, disk_format)
    with open_regular(path) as file:
        source = file.fileno()
        if disk_format == "raw":
            _copy(source, 0, target, 0, size)
            return size
        room = os.fstat(source).st_size + CLUSTER  # the last cluster of a file may be short
        entries, offset = struct.unpack(">IQ", read_at(source, 12, 36))
        os.ftruncate(target, size)
        for number, entry in enumerate(table(source, offset, entries)):
            if entry & OFFSET and number * _PER_L2_TABLE < size:
                second = table(source, entry & OFFSET, _ENTRIES)
                room -= _copy_clusters(source, second, target, number * _PER_L2_TABLE, size)
                if room < 0:
                    raise DiskRefusedError(f"{path} uses clusters more than once")
    return size


def _copy_clusters(source: int, second: "array[int]", target: int, begin: int, size: int) -> int:
    """Copy what one second-level table refers to, to the offset `begin` and beyond.

    Neighbouring clusters are copied at once. Returns how many bytes that was.
    """
    copied = position = 0
    while position < _ENTRIES:
        entry = second[position]
        if entry & IS_COMPRESSED:
            raise DiskRefusedError("a cluster of the disk is compressed")
        first, offset = position, entry & OFFSET
        position += 1
        if not offset or entry & IS_ZERO:
            continue
        while (
            position < _ENTRIES
            and second[position] & OFFSET == offset + (position - first) * CLUSTER
            and not second[position] & (IS_ZERO | IS_COMPRESSED)
        ):
            position += 1
        at = begin + first * CLUSTER
        length = min((position - first) * CLUSTER, size - at)
        _copy(source, offset, target, at, length)
        copied += length
    return copied


def _copy(source: int, offset: int, target: int, at: int, length: int) -> None:
    while length > 0:
        done = copy_range(source, offset, target, at, length)
        if not done:
            return
        offset, at, length = offset + done, at + done, length - done
