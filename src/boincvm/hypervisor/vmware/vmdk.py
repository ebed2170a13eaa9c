"""VMDK files as far as machines need them: the image's disk, an empty layer, the check of a layer,
and one layer in place of many.

A VMDK file names other files of the host: what its bytes lie in (its extent), and the disk beneath
it. So a layer is taken only if it is a file of the one kind that we and VMware's snapshots write
(a "monolithic sparse" one, whose only extent is itself), and names what it has to lie over.
The format is VMware's "Virtual Disk Format 5.0".
"""

import os
import re
import secrets
import struct
import sys
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from boincvm.host.files import create_new, open_regular, read_at
from boincvm.hypervisor.qcow2 import DiskRefusedError

SECTOR = 512
BASE_CID = 0xB01C0001
"""The content id of each image's disk, which never changes."""
_NO_PARENT = 0xFFFFFFFF
_MAGIC = b"KDMV"
_HEADER = "<4sIIQQQQIQQQB4sH"
_VERSIONS = (1, 2, 3)
_FLAGS = 3  # line ends are intact; there is a second table of grains
_HAS_ZERO_GRAINS = 4
_NOT_THERE, _ZERO = 0, 1
"""Entries of a grain table: the grain is that of the disk beneath; it is zero."""
_LINE_ENDS = b"\n \r\n"
_GRAIN = 128  # sectors
_ENTRIES = 512  # of a grain table
_DESCRIPTOR_AT, _DESCRIPTOR_SECTORS = 1, 20
_MOST_SECTORS = 1 << 36
_GRAIN_SIZE = _GRAIN * SECTOR
_TABLE_SIZE = 4 * _ENTRIES
_LINE = re.compile(r'^\s*(\w+)\s*=\s*"?([^"]*?)"?\s*$', re.MULTILINE)
_EXTENT = re.compile(r'^\s*(RW|RDONLY|NOACCESS)\s+(\d+)\s+(\w+)\s+"([^"]*)"(.*)$', re.MULTILINE)


class LayerRefusedError(DiskRefusedError):
    """The file is not allowed as a layer of a machine's disk; the text says which and why."""


class Layer(NamedTuple):
    """What a layer says of itself."""

    content_id: int
    """It changes with what is written; a layer over this one names it."""
    parent_id: int
    """The content id of the disk beneath."""
    parent: str
    """The name of the file beneath, without its directory."""
    size: int
    """Bytes of the disk."""


def write_base(path: Path, raw: str, size: int) -> None:
    """Write the description of a disk whose `size` bytes lie as they are in the file `raw`.

    Raises OSError.
    """
    with create_new(path) as file:
        file.write(
            _description(
                BASE_CID, _NO_PARENT, "", "monolithicFlat", f'FLAT "{raw}" 0', size // SECTOR
            )
        )


def write_layer(path: Path, size: int, parent: str, parent_id: int) -> None:
    """Write an empty layer of `size` bytes over the file `parent` in the same directory.

    Raises OSError.
    """
    sectors = size // SECTOR
    tables = -(-sectors // (_GRAIN * _ENTRIES))
    directory = -(-tables * 4 // SECTOR)
    table_sectors = _ENTRIES * 4 // SECTOR
    first = _DESCRIPTOR_AT + _DESCRIPTOR_SECTORS
    second = first + directory + tables * table_sectors
    end = second + directory + tables * table_sectors
    data = -(-end // _GRAIN) * _GRAIN
    header = struct.pack(
        _HEADER,
        *(_MAGIC, 1, _FLAGS, sectors, _GRAIN, _DESCRIPTOR_AT, _DESCRIPTOR_SECTORS, _ENTRIES),
        *(first, second, data, 0, _LINE_ENDS, 0),
    )
    own = secrets.randbelow(_NO_PARENT - 1) + 1
    description = _description(
        own, parent_id, parent, "monolithicSparse", f'SPARSE "{path.name}"', sectors
    )
    with create_new(path) as file:
        file.write(header.ljust(SECTOR, b"\0"))
        file.write(description.ljust(_DESCRIPTOR_SECTORS * SECTOR, b"\0"))
        for at in (first, second):
            begin = at + directory
            entries = (begin + number * table_sectors for number in range(tables))
            file.seek(at * SECTOR)
            file.write(struct.pack(f"<{tables}I", *entries))
        file.truncate(data * SECTOR)


def _description(own: int, below: int, parent: str, kind: str, extent: str, sectors: int) -> bytes:
    hint = f'parentFileNameHint="{parent}"\n' if parent else ""
    return (
        "# Disk DescriptorFile\nversion=1\n"
        f'CID={own:08x}\nparentCID={below:08x}\ncreateType="{kind}"\n{hint}\n'
        f"# Extent description\nRW {sectors} {extent}\n\n"
        "# The Disk Data Base\n#DDB\n\n"
        'ddb.virtualHWVersion = "14"\n'
        f'ddb.geometry.cylinders = "{sectors // (63 * 255)}"\n'
        'ddb.geometry.heads = "255"\nddb.geometry.sectors = "63"\n'
        'ddb.adapterType = "lsilogic"\n'
    ).encode("ascii")


def read_layer(path: Path) -> Layer:
    """Read and check what a layer says of itself. Raises LayerRefusedError, OSError."""
    with open_regular(path) as file:
        head = read_at(file.fileno(), (_DESCRIPTOR_AT + _DESCRIPTOR_SECTORS) * SECTOR, 0)
        length = os.fstat(file.fileno()).st_size
    name = path.name
    if len(head) < struct.calcsize(_HEADER) or head[:4] != _MAGIC:
        raise LayerRefusedError(f"{name} is not a VMDK file with grains")
    (
        _, version, _, sectors, grain, at, count, entries, first, second, data, _, ends, packed,
    ) = struct.unpack_from(_HEADER, head)  # fmt: skip
    if version not in _VERSIONS or (grain, entries, ends, packed) != (
        *(_GRAIN, _ENTRIES, _LINE_ENDS),
        0,
    ):
        raise LayerRefusedError(f"{name} uses features that none of our layers has")
    if (
        not 0 < sectors <= _MOST_SECTORS
        or (at, count) != (_DESCRIPTOR_AT, _DESCRIPTOR_SECTORS)
        or not at + count <= first < data
        or not at + count <= second < data
        or data * SECTOR > length
    ):
        raise LayerRefusedError(f"{name} is damaged: its sizes are invalid")
    description = head[at * SECTOR : (at + count) * SECTOR].partition(b"\0")[0]
    return _read_description(description.decode("utf-8", "replace"), path, sectors)


def merge_layers(paths: Sequence[Path], target: Path) -> None:
    """Write a new layer to `target` that holds what the layers hold, the lowest of them first.

    It lies over what the lowest one lies over. Raises OSError, LayerRefusedError.
    """
    layers = [read_layer(path) for path in paths]
    write_layer(target, layers[-1].size, layers[0].parent, layers[0].parent_id)
    with ExitStack() as stack:
        output = stack.enter_context(target.open("r+b"))
        above = [
            _Grains(stack.enter_context(open_regular(path)), path.name) for path in reversed(paths)
        ]
        merged = _Grains(output, target.name)
        end = output.seek(0, os.SEEK_END)
        for number in range(merged.tables):
            entries = array("I", bytes(_TABLE_SIZE))
            tables = [(layer, layer.table(number)) for layer in above]
            for grain in range(_ENTRIES):
                for layer, table in tables:
                    content = layer.grain(table, grain)
                    if content is None:
                        continue
                    output.seek(end)
                    output.write(content.ljust(_GRAIN_SIZE, b"\0"))
                    entries[grain] = end // SECTOR
                    end += _GRAIN_SIZE
                    break
            merged.put_table(number, entries)


class _Grains:
    """The grains of an open layer that `read_layer` has taken."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        head = read_at(file.fileno(), struct.calcsize(_HEADER), 0)
        _, _, flags, sectors, _, _, _, _, first, second, *_ = struct.unpack_from(_HEADER, head)
        self._has_zeros = bool(flags & _HAS_ZERO_GRAINS)
        self._directories = (second, first)
        self.tables = -(-sectors // (_GRAIN * _ENTRIES))

    def table(self, number: int) -> "array[int] | None":
        """Return a grain table, None if the layer has none of its grains. Raises OSError."""
        at = self._table_at(self._directories[0], number)
        return _words(self._read(at, _TABLE_SIZE)) if at else None

    def grain(self, table: "array[int] | None", number: int) -> bytes | None:
        """Return a grain's bytes, None if it is that of the disk beneath. Raises OSError."""
        entry = table[number] if table is not None else _NOT_THERE
        if entry == _NOT_THERE:
            return None
        if entry == _ZERO and self._has_zeros:
            return b""
        return self._read(entry, _GRAIN_SIZE, may_be_short=True)

    def put_table(self, number: int, entries: "array[int]") -> None:
        """Write a grain table, and its copy. Raises OSError."""
        if sys.byteorder == "big":
            entries.byteswap()
        for directory in self._directories:
            self._file.seek(self._table_at(directory, number) * SECTOR)
            self._file.write(entries)

    def _table_at(self, directory: int, number: int) -> int:
        """Return the sector at which a table begins, 0 if there is none."""
        begin = directory * SECTOR + 4 * number
        return _words(read_at(self._file.fileno(), 4, begin).ljust(4, b"\0"))[0]

    def _read(self, sector: int, size: int, *, may_be_short: bool = False) -> bytes:
        data = read_at(self._file.fileno(), size, sector * SECTOR)
        if not data or (len(data) < size and not may_be_short):
            raise LayerRefusedError(f"{self._name} is damaged: a part of it is not in the file")
        return data


def _words(data: bytes) -> "array[int]":
    words = array("I", data)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def _read_description(text: str, path: Path, sectors: int) -> Layer:
    name = path.name
    extents = _EXTENT.findall(text)
    values = dict(_LINE.findall(text))
    if values.get("createType") != "monolithicSparse":
        raise LayerRefusedError(f"{name} is not a disk in a single file")
    if [(access, int(size), kind, rest.strip()) for access, size, kind, _, rest in extents] != [
        ("RW", sectors, "SPARSE", "")
    ] or not _is_beside(extents[0][3], name, path):
        raise LayerRefusedError(f"{name} names another file as its content")
    parent = values.get("parentFileNameHint", "")
    if not parent:
        raise LayerRefusedError(f"{name} is not a layer over another disk")
    if not _is_beside(parent, Path(parent).name, path):
        raise LayerRefusedError(f"{name} lies over a disk in another directory")
    return Layer(
        _content_id(values.get("CID"), name),
        _content_id(values.get("parentCID"), name),
        Path(parent).name,
        sectors * SECTOR,
    )


def _is_beside(named: str, name: str, path: Path) -> bool:
    """Tell whether `named` is the file `name` in the directory of `path`."""
    return named in (name, str(path.with_name(name)))


def _content_id(text: str | None, name: str) -> int:
    if text is None or not re.fullmatch(r"[0-9a-fA-F]{1,8}", text):
        raise LayerRefusedError(f"{name} is damaged: it has no content id")
    return int(text, 16)
