"""Reads a running machine's root disk from the host, past the guest and its hypervisor.

The disk is a stack of qcow2 files over the image's disk. The hypervisor writes them by way of the
host's page cache, and has written its tables there when the guest's flush has returned; so what the
guest has flushed can be read here. Tables are read again for each copy.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError
from boincvm.host.files import copy_range, open_descriptor, read_at
from boincvm.hypervisor.contract import DiskRangeError
from boincvm.hypervisor.qcow2 import (
    CLUSTER,
    IS_COMPRESSED,
    IS_ZERO,
    OFFSET,
    DiskRefusedError,
    check_header,
    table,
)

_ENTRIES = CLUSTER // 8
_L1_FIELDS = 36
"""Where a header says how many entries the L1 table has, and where it is."""


class _Extent(NamedTuple):
    """Neighbouring bytes of the disk that are neighbours in a file too."""

    length: int
    source: int
    """The file's descriptor, or -1 for zeros."""
    offset: int = 0


class _Layer:
    """A qcow2 file; `source` is its descriptor."""

    def __init__(self, source: int, name: str) -> None:
        """Check the file. Raises OSError, DiskRefusedError."""
        self.source = source
        head = read_at(source, CLUSTER, 0)
        self.size = check_header(head, os.fstat(source).st_size, name)
        self._l1_entries, self._l1_table = struct.unpack_from(">IQ", head, _L1_FIELDS)

    def entries(self, first: int, most: int) -> Sequence[int]:
        """Return the table's entries for up to `most` clusters from `first` on, at least one."""
        index, position = divmod(first, _ENTRIES)
        most = min(most, _ENTRIES - position)
        if index >= self._l1_entries:
            return [0] * most
        (l1_entry,) = table(self.source, self._l1_table + index * 8, 1)
        l2_table = l1_entry & OFFSET
        if not l2_table:
            return [0] * most
        return table(self.source, l2_table + position * 8, most)


class RootDiskReader:
    """The `contract.DiskReader` of a disk whose `layers`, the highest first, lie over a raw disk.

    `raw` is the raw disk's descriptor, or -1 if all is in layers. It owns the descriptors.
    """

    def __init__(self, layers: Sequence[_Layer], raw: int) -> None:
        self._layers = layers
        self._raw = raw

    def copy(self, at: int, length: int, target: int, offset: int) -> None:
        if at < 0 or length < 0 or at + length > self._layers[0].size:
            raise DiskRangeError("this is not on the disk")
        try:
            for extent in self._extents(at, length):
                if extent.source >= 0:
                    _copy(extent, target, offset)
                offset += extent.length
        except DiskRefusedError as error:
            raise DiskRangeError(str(error)) from error

    def _extents(self, at: int, length: int, level: int = 0) -> Iterator[_Extent]:
        """Yield what a range of the disk is made of, from the layer number `level` down."""
        if level == len(self._layers):
            if self._raw < 0:
                raise DiskRangeError("this was never stored on the disk")
            yield _Extent(length, self._raw, at)
            return
        layer, end = self._layers[level], at + length
        while at < end:
            first = at // CLUSTER
            for kind, offset, count in _runs(layer.entries(first, -(-end // CLUSTER) - first)):
                piece = min((first + count) * CLUSTER, end) - at
                if kind is _BELOW:
                    yield from self._extents(at, piece, level + 1)
                elif kind is _ZERO:
                    yield _Extent(piece, -1)
                else:
                    yield _Extent(piece, layer.source, offset + at - first * CLUSTER)
                at, first = at + piece, first + count

    def close(self) -> None:
        for layer in self._layers:
            os.close(layer.source)
        if self._raw >= 0:
            os.close(self._raw)
        self._layers, self._raw = (), -1


_BELOW, _ZERO, _HERE = "below", "zero", "here"


def _runs(entries: Sequence[int]) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, offset in the file, number of clusters) of neighbours of one kind."""
    kind, begin, count = "", 0, 0
    for entry in entries:
        if entry & IS_COMPRESSED:
            raise DiskRangeError("a cluster of the disk is compressed")
        offset = entry & OFFSET
        new = _ZERO if entry & IS_ZERO else _HERE if offset else _BELOW
        if new is kind and (new is not _HERE or offset == begin + count * CLUSTER):
            count += 1
            continue
        if count:
            yield kind, begin, count
        kind, begin, count = new, offset, 1
    yield kind, begin, count


def _copy(extent: _Extent, target: int, offset: int) -> None:
    length, source, begin = extent
    while length > 0:
        done = copy_range(source, begin, target, offset, length)
        if not done:
            return  # a file's last cluster may be short; the rest is zeros
        begin, offset, length = begin + done, offset + done, length - done


def open_disk(layers: Sequence[int], root: Path, root_format: str) -> RootDiskReader:
    """Return a reader of the disk made of `layers`, the lowest first, over the image's disk.

    `layers` are descriptors, which the reader then owns. Raises OSError, HypervisorError.
    """
    opened = list(layers)
    try:
        opened.insert(0, open_descriptor(root))
        files = [_Layer(layer, "a layer of the disk") for layer in reversed(opened[1:])]
        if root_format == "raw":
            return RootDiskReader(files, opened[0])
        return RootDiskReader([*files, _Layer(opened[0], "the image's disk")], -1)
    except BaseException as error:
        for descriptor in opened:
            os.close(descriptor)
        if isinstance(error, DiskRefusedError):
            raise HypervisorError(f"the machine's disk is refused: {error}") from error
        raise
