"""Checks of disk images that others have made, before qemu-img opens them.

A disk image may name other files of the host as its content or as the disk beneath it, and may
claim any size. A file passes if it is of the one format that it is taken for, names no other file,
and is no larger than MOST_SIZE. What can be known only from all of its tables (how much it unpacks
to) is asked of qemu-img afterwards. Formats: QEMU's docs/interop/qcow2.txt and block/vdi.c;
VMware's "Virtual Disk Format 5.0"; Microsoft's [MS-VHDX].
"""

import os
import re
import struct
import uuid
from collections.abc import Callable, Mapping

from boincvm.host.files import read_at
from boincvm.hypervisor.qcow2 import CLUSTER, DiskRefusedError, check_header

MOST_SIZE = 1 << 40
"""Bytes of a disk, as a machine sees it."""
_SECTOR = 512

_VDI_SIGNATURE, _VDI_VERSION = 0xBEDA107F, 0x00010001
_VDI_KINDS = (1, 2)
"""Dynamic and fixed; others lie over another disk."""
_VDI_BLOCK = 1 << 20

_VMDK_MAGIC, _VMDK_VERSIONS = b"KDMV", (1, 2, 3)
_VMDK_HEADER = "<4sIIQQQQIQQQ"
_VMDK_LENGTH = struct.calcsize(_VMDK_HEADER)
_AT_END = 0xFFFFFFFFFFFFFFFF
_DESCRIPTION_AT, _DESCRIPTION_LENGTH = 512, 20 * 512
"""What QEMU reads of a description, wherever the header says that it is."""
_EXTENT = re.compile(rb"(?m)^[ \t]*(?:RW|RDONLY|NOACCESS)[ \t].*$")
_OWN_EXTENT = re.compile(rb'(?:RW|RDONLY) (\d{1,12}) SPARSE "[^"/\\]{1,255}"\s*')
_KIND = re.compile(rb'(?m)^createType[ \t]*=[ \t]*"(monolithicSparse|streamOptimized)"\s*$')
_NO_PARENT = re.compile(rb"(?mi)^parentCID[ \t]*=[ \t]*ffffffff\s*$")

_VHDX_SIGNATURE = b"vhdxfile"
_REGION_TABLE = 192 << 10
_METADATA_REGION = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_VIRTUAL_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_HAS_PARENT = 2
_MOST_REGIONS, _MOST_ITEMS = 2047, 2047


def check_disk_file(disk: int, disk_format: str) -> int:
    """Return the size in bytes of the disk in the file with the descriptor `disk`.

    Raises DiskRefusedError, whose text says why in one line, OSError.
    """
    length = os.fstat(disk).st_size
    try:
        size = _CHECKS[disk_format](disk, length)
    except struct.error as error:
        raise DiskRefusedError("its header is not complete") from error
    if not 0 < size <= MOST_SIZE or size % _SECTOR:
        raise DiskRefusedError(f"its size of {size} bytes is invalid or too large")
    return size


def _check_raw(_disk: int, length: int) -> int:
    return length


def _check_qcow2(disk: int, length: int) -> int:
    return check_header(read_at(disk, CLUSTER, 0), length, "it")


def _check_vdi(disk: int, length: int) -> int:
    head = read_at(disk, _SECTOR, 0)
    signature, version, _, kind = struct.unpack_from("<IIII", head, 0x40)
    if (signature, version) != (_VDI_SIGNATURE, _VDI_VERSION):
        raise DiskRefusedError("it is not a VDI file of version 1.1")
    map_at, data_at = struct.unpack_from("<II", head, 0x154)
    size, block, _, blocks = struct.unpack_from("<QIII", head, 0x170)
    parent = head[0x1A8:0x1B8]
    if kind not in _VDI_KINDS or any(parent):
        raise DiskRefusedError("it lies over another disk")
    if block != _VDI_BLOCK or blocks != -(-size // _VDI_BLOCK):
        raise DiskRefusedError("its sizes are invalid")
    if map_at < _SECTOR or map_at + 4 * blocks > data_at or map_at + 4 * blocks > length:
        raise DiskRefusedError("its tables lie outside the file")
    return int(size)


def _check_vmdk(disk: int, length: int) -> int:
    head = read_at(disk, _DESCRIPTION_AT + _DESCRIPTION_LENGTH, 0)
    if not head.startswith(_VMDK_MAGIC):
        raise DiskRefusedError(
            "it is not a VMDK file with its content in it (a description names other files)"
        )
    size, at, sectors, grains_at = _vmdk_header(head)
    if at * _SECTOR != _DESCRIPTION_AT or not 0 < sectors <= _DESCRIPTION_LENGTH // _SECTOR:
        raise DiskRefusedError("its description is not where it should be")
    if grains_at == _AT_END:
        # The header that counts is the copy at the end.
        footer = read_at(disk, _VMDK_LENGTH, max(length - 2 * _SECTOR, 0))
        if (
            length % _SECTOR
            or not footer.startswith(_VMDK_MAGIC)
            or _vmdk_header(footer)[0] != size
        ):
            raise DiskRefusedError("its header and its footer differ")
    description = head[_DESCRIPTION_AT:]
    if b"parentfilenamehint" in description.lower():
        raise DiskRefusedError("it lies over another disk")
    text, _, rest = description[: sectors * _SECTOR].partition(b"\0")
    if rest.strip(b"\0\n"):  # qemu-img may leave the last line end of a longer text there
        raise DiskRefusedError("there is more behind its description")
    _check_description(text, size)
    return size * _SECTOR


def _vmdk_header(head: bytes) -> tuple[int, int, int, int]:
    """Return the disk's sectors, the description's place and size, and the grain directory's."""
    _, version, _, size, grain, at, sectors, entries, _, grains_at, _ = struct.unpack_from(
        _VMDK_HEADER, head
    )
    if version not in _VMDK_VERSIONS:
        raise DiskRefusedError(f"it is a VMDK file of version {version}")
    if not size or not 0 < grain <= 1 << 15 or not 0 < entries <= 512:
        raise DiskRefusedError("its sizes are invalid")
    return size, at, sectors, grains_at


def _check_description(text: bytes, size: int) -> None:
    extents = _EXTENT.findall(text)
    if not _KIND.search(text):
        raise DiskRefusedError("it is not a disk in a single file")
    if len(extents) != 1:
        raise DiskRefusedError(f"it has {len(extents)} extents, not one")
    own = _OWN_EXTENT.fullmatch(extents[0])
    if own is None or int(own[1]) != size:
        raise DiskRefusedError("it names another file as its content")
    if not _NO_PARENT.search(text):
        raise DiskRefusedError("it lies over another disk")


def _check_vhdx(disk: int, length: int) -> int:
    if read_at(disk, 8, 0) != _VHDX_SIGNATURE:
        raise DiskRefusedError("it is not a VHDX file")
    metadata = _metadata(disk, length)
    items = _metadata_items(disk, metadata)
    if _FILE_PARAMETERS not in items or _VIRTUAL_SIZE not in items:
        raise DiskRefusedError("it does not tell its size")
    (flags,) = struct.unpack("<I", read_at(disk, 4, metadata + items[_FILE_PARAMETERS] + 4))
    if flags & _HAS_PARENT:
        raise DiskRefusedError("it lies over another disk")
    (size,) = struct.unpack("<Q", read_at(disk, 8, metadata + items[_VIRTUAL_SIZE]))
    return int(size)


def _metadata(disk: int, length: int) -> int:
    """Return where the metadata is."""
    signature, _, count, _ = struct.unpack("<4sIII", read_at(disk, 16, _REGION_TABLE))
    if signature != b"regi" or count > _MOST_REGIONS:
        raise DiskRefusedError("its region table is invalid")
    table = read_at(disk, 32 * count, _REGION_TABLE + 16)
    for name, at, size, _ in struct.iter_unpack("<16sQII", table[: len(table) // 32 * 32]):
        if name == _METADATA_REGION:
            if at + size > length:
                raise DiskRefusedError("its tables lie outside the file")
            return int(at)
    raise DiskRefusedError("it has no metadata")


def _metadata_items(disk: int, metadata: int) -> Mapping[bytes, int]:
    """Return the places of the items in the metadata."""
    signature, _, count = struct.unpack("<8sHH", read_at(disk, 12, metadata))
    if signature != b"metadata" or count > _MOST_ITEMS:
        raise DiskRefusedError("its metadata are invalid")
    table = read_at(disk, 32 * count, metadata + 32)
    entries = struct.iter_unpack("<16sI12x", table[: len(table) // 32 * 32])
    return {name: int(at) for name, at in entries}


_CHECKS: Mapping[str, Callable[[int, int], int]] = {
    "raw": _check_raw,
    "qcow2": _check_qcow2,
    "vdi": _check_vdi,
    "vmdk": _check_vmdk,
    "vhdx": _check_vhdx,
}
