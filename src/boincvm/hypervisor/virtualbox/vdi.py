"""VDI files as far as machines need them: an empty layer over a disk, and the check of one.

A layer (a "differencing image") names the disk beneath it by that disk's UUID, and never by a path;
VirtualBox finds it in its registry, which is ours. So no VDI file can lead to another file of the
host. The format is described in the header of a file that VirtualBox writes, and has not changed
since 2008 (version 1.1).
"""

import os
import struct
import sys
import uuid
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from boincvm.host.files import create_new, open_regular, read_at
from boincvm.hypervisor.qcow2 import DiskRefusedError

BLOCK = 1 << 20
_SECTOR = 512
_SIGNATURE, _VERSION, _HEADER_SIZE, _LAYER = 0xBEDA107F, 0x00010001, 0x190, 4
_TEXT = b"<<< Oracle VM VirtualBox Disk Image >>>\n"
_MAP_AT = BLOCK
_UNUSED = b"\xff\xff\xff\xff"
_NOT_THERE, _ZERO = 0xFFFFFFFF, 0xFFFFFFFE
_ALLOCATED_AT = 0x184
_MOST_BLOCKS = 1 << 25
_FIELDS = "<IIII I256sII 4I I QIIII 16s16s16s16s"
_FIELDS_AT = 0x40
_LENGTH = _FIELDS_AT + struct.calcsize(_FIELDS)


class LayerRefusedError(DiskRefusedError):
    """The file is not allowed as a layer of a machine's disk; the text says which and why."""


class Layer(NamedTuple):
    """What a layer's header says."""

    id: uuid.UUID
    below: uuid.UUID
    """The UUID of the disk beneath it."""
    size: int
    """Bytes of the disk."""


def write_layer(
    path: Path, size: int, below: uuid.UUID, below_size: int | None = None
) -> uuid.UUID:
    """Write an empty layer of `size` bytes to `path`; return its UUID.

    `below_size`: bytes of the disk beneath, if that is smaller. What is beyond is zero; VirtualBox
    would look for it beneath, and fail. Raises OSError.
    """
    layer = uuid.uuid4()
    blocks = -(-size // BLOCK)
    shared = blocks if below_size is None else min(-(-below_size // BLOCK), blocks)
    table = _UNUSED * shared + struct.pack("<I", _ZERO) * (blocks - shared)
    data = _MAP_AT + len(table) + -len(table) % BLOCK
    fields = struct.pack(
        _FIELDS,
        *(_SIGNATURE, _VERSION, _HEADER_SIZE, _LAYER, 0, b"", _MAP_AT, data, 0, 0, 0, _SECTOR, 0),
        *(size, BLOCK, 0, blocks, 0),
        *(layer.bytes_le, uuid.uuid4().bytes_le, below.bytes_le, bytes(16)),
    )
    with create_new(path) as file:
        file.write(_TEXT.ljust(_FIELDS_AT, b"\0") + fields + struct.pack("<4I", 0, 0, 0, _SECTOR))
        file.seek(_MAP_AT)
        file.write(table)
        file.truncate(data)
    return layer


def read_layer(path: Path) -> Layer:
    """Read and check a layer's header. Raises LayerRefusedError, OSError."""
    with open_regular(path) as file:
        head = read_at(file.fileno(), _LENGTH, 0)
        length = os.fstat(file.fileno()).st_size
    if len(head) < _LENGTH:
        raise LayerRefusedError(f"{path.name} is not a VDI file")
    (
        signature, version, header, kind, _, _, map_at, data_at, _, _, _, sector, _,
        size, block, extra, blocks, allocated, own, _, below, _,
    ) = struct.unpack_from(_FIELDS, head, _FIELDS_AT)  # fmt: skip
    if (signature, version, header) != (_SIGNATURE, _VERSION, _HEADER_SIZE):
        raise LayerRefusedError(f"{path.name} is not a VDI file of version 1.1")
    if kind != _LAYER:
        raise LayerRefusedError(f"{path.name} is not a layer over another disk")
    if (
        (block, extra, sector) != (BLOCK, 0, _SECTOR)
        or not 0 < size <= blocks * BLOCK
        or not 0 < blocks <= _MOST_BLOCKS
        or size % _SECTOR
        or allocated > blocks
        or map_at < _LENGTH
        or data_at < map_at + 4 * blocks
        or data_at > length
    ):
        raise LayerRefusedError(f"{path.name} is damaged: its sizes are invalid")
    return Layer(uuid.UUID(bytes_le=own), uuid.UUID(bytes_le=below), size)


def merge_layers(paths: list[Path], target: Path) -> uuid.UUID:
    """Write one layer to `target` with what is in all of `paths`, the lowest first.

    Returns its UUID. Raises LayerRefusedError, OSError.
    """
    layers = [read_layer(path) for path in paths]
    size = layers[-1].size
    merged = write_layer(target, size, layers[0].below)
    blocks = -(-size // BLOCK)
    table = array("I", _UNUSED * blocks)
    with ExitStack() as stack:
        output = stack.enter_context(target.open("r+b"))
        data = output.seek(0, os.SEEK_END)
        used = 0
        for path in reversed(paths):
            source = stack.enter_context(open_regular(path))
            for block, offset in _blocks(source.fileno(), path.name):
                if block >= blocks or table[block] != _NOT_THERE:
                    continue
                if offset is None:
                    table[block] = _ZERO
                    continue
                content = read_at(source.fileno(), BLOCK, offset)
                output.seek(data + used * BLOCK)
                output.write(content.ljust(BLOCK, b"\0"))
                table[block] = used
                used += 1
        if sys.byteorder == "big":
            table.byteswap()
        output.seek(_MAP_AT)
        output.write(table)
        output.seek(_ALLOCATED_AT)
        output.write(struct.pack("<I", used))
    return merged


def _blocks(source: int, name: str) -> Iterator[tuple[int, int | None]]:
    """Yield the blocks that a layer has, with their offsets in the file; None for a zero block."""
    head = read_at(source, _LENGTH, 0)
    map_at, data_at = struct.unpack_from("<II", head, _FIELDS_AT + 20 + 256)
    (blocks,) = struct.unpack_from("<I", head, _ALLOCATED_AT - 4)
    length = os.fstat(source).st_size
    for block, (position,) in enumerate(
        struct.iter_unpack("<I", read_at(source, 4 * blocks, map_at))
    ):
        if position == _NOT_THERE:
            continue
        offset = data_at + position * BLOCK
        if position != _ZERO and offset >= length:
            raise LayerRefusedError(f"{name} is damaged: a block is not in the file")
        yield block, None if position == _ZERO else offset
