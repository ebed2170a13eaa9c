"""Merging of several disk layers into one, transparently to the processes that use them.

Format: QEMU's docs/interop/qcow2.txt. The layers are our own: version 3, clusters of 64 KiB,
nothing compressed, encrypted, or kept in another file.
"""

import struct
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from boincvm.host.files import read_at
from boincvm.hypervisor.qcow2 import (
    CLUSTER,
    IS_COMPRESSED,
    IS_ZERO,
    OFFSET,
    DiskRefusedError,
    check_disk,
    header_of,
    table,
)

_ENTRIES = CLUSTER // 8
_IN_USE_ONCE = 1 << 63
_PER_REFCOUNT_BLOCK = CLUSTER // 2


class MergeError(Exception):
    """A layer is not a file of ours."""


class _Layer:
    """An open layer; `at` finds a cluster of the disk in it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.file = file
        try:
            self.size = check_disk(path)
        except DiskRefusedError as error:
            raise MergeError(str(error)) from error
        entries, offset = struct.unpack_from(">IQ", self.file.read(48), 36)
        self.tables = self._table(offset, entries)

    def entries(self, index: int) -> "array[int] | None":
        """Return the entries of a second-level table, or None if it does not exist."""
        offset = self.tables[index] & OFFSET if index < len(self.tables) else 0
        return self._table(offset, _ENTRIES) if offset else None

    def _table(self, offset: int, entries: int) -> "array[int]":
        try:
            return table(self.file.fileno(), offset, entries)
        except DiskRefusedError as error:
            raise MergeError(str(error)) from error


def merge(layers: Sequence[Path], target: Path) -> None:
    """Merge the layers, the lowest first, into the new file `target`, without syncing it.

    Raises MergeError, OSError.
    """
    with ExitStack() as stack:
        opened = [_Layer(path, stack.enter_context(path.open("rb"))) for path in layers]
        _Writer(stack.enter_context(target.open("xb")), opened).write()


class _Writer:
    """Writes the merged file.

    It is a header, the first-level table, then data and second-level tables as they come, and at
    the end the reference counts of clusters.
    """

    def __init__(self, file: BinaryIO, layers: Sequence[_Layer]) -> None:
        self._file = file
        self._layers = layers
        self._size = layers[-1].size
        self._count = -(-self._size // (CLUSTER * _ENTRIES))
        self._next = 1 + -(-self._count * 8 // CLUSTER)

    def write(self) -> None:
        first = array("Q", bytes(8 * self._count))
        for index in range(self._count):
            first[index] = self._second_level(index)
        refcount_table, table_clusters = self._refcounts()
        header = header_of(self._size, self._count, CLUSTER, refcount_table, table_clusters)
        self._put(0, header)
        first.byteswap()
        self._put(CLUSTER, first.tobytes())
        self._file.truncate(self._next * CLUSTER)

    def _second_level(self, index: int) -> int:
        """Copy what one second-level table refers to, and return the entry for the table."""
        tables = [(layer, layer.entries(index)) for layer in reversed(self._layers)]
        merged = array("Q", bytes(CLUSTER))
        for position in range(_ENTRIES) if any(second for _, second in tables) else ():
            for layer, second in tables:
                entry = second[position] if second is not None else 0
                if entry & IS_COMPRESSED:
                    raise MergeError("a cluster is compressed")
                if entry & IS_ZERO:
                    merged[position] = IS_ZERO
                elif entry & OFFSET:
                    merged[position] = self._copy(layer, entry & OFFSET) | _IN_USE_ONCE
                else:
                    continue
                break
        if not any(merged):
            return 0
        merged.byteswap()
        at = self._allocate()
        self._put(at, merged.tobytes())
        return int(at | _IN_USE_ONCE)

    def _copy(self, layer: _Layer, offset: int) -> int:
        data = read_at(layer.file.fileno(), CLUSTER, offset)
        at = self._allocate()
        self._put(at, data)  # the last cluster of a file may be short
        return at

    def _refcounts(self) -> tuple[int, int]:
        """Write the reference counts; return where their table is, and how many clusters it has."""
        clusters, blocks, table = self._next, 0, 0
        while blocks * _PER_REFCOUNT_BLOCK < clusters + blocks + table:
            blocks = -(-(clusters + blocks + table) // _PER_REFCOUNT_BLOCK)
            table = -(-blocks * 8 // CLUSTER)
        total = clusters + blocks + table
        counts = struct.pack(">H", 1) * total
        offsets = array("Q", (self._allocate() for _ in range(blocks)))
        for number, offset in enumerate(offsets):
            part = counts[number * CLUSTER : (number + 1) * CLUSTER]
            self._put(offset, part.ljust(CLUSTER, b"\0"))
        at = self._next * CLUSTER
        self._next += table
        offsets.byteswap()
        self._put(at, offsets.tobytes().ljust(table * CLUSTER, b"\0"))
        return at, table

    def _allocate(self) -> int:
        offset: int = self._next * CLUSTER
        self._next += 1
        return offset

    def _put(self, at: int, data: bytes) -> None:
        self._file.seek(at)
        self._file.write(data)
