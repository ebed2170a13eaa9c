"""Blocks: what a host needs to make an image from whatever images it has.

The map names each block of 4 KiB of an image by the first bytes of its digest. What a host finds in
its own images it does not download; the others it reads, by ranges, from the file of blocks, which
has each block once, compressed by itself.

    "boincvm map 1\\n\\0\\0"
    the bytes of the manifest, compressed and not (two numbers of 32 bits), and it, as raw deflate
    for each file of the manifest, for each of its blocks: NAME_BYTES of its SHA-256, and the bytes
    that it has in the file of blocks (16 bits; 0 if the same block was there before)

Numbers have the lowest byte first; the last block of a file may be short. The blocks' names detect
damage early; only the digest of each whole file decides.
"""

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from boincvm.errors import ImageDamagedError
from boincvm.image.delivery.patch import BLOCK, numbered
from boincvm.image.manifest import MOST_BYTES, ROOT, ContentFile, Manifest, decode_manifest
from boincvm.image.pack_format import finish_file

MOST_IMAGE_BYTES = 2 << 30
"""Larger images have no map: it would take much memory."""
NAME_BYTES = 8
_MAGIC = b"boincvm map 1\n\0\0"
_HEAD = struct.Struct("<II")
_ENTRY = struct.Struct(f"<{NAME_BYTES}sH")
MOST_MAP_BYTES = len(_MAGIC) + _HEAD.size + 2 * MOST_BYTES + (MOST_IMAGE_BYTES // BLOCK + 3) * 10
LONGEST_GAP = 2048
"""Bytes that are not needed, between two that are, which are read with them."""
LONGEST_RANGE = 1 << 20
RANGE_COST = 32 << 10
"""Bytes that could arrive in the time that one more range takes."""


class PackedBlock(NamedTuple):
    """Where a block is in the file of blocks."""

    digest: bytes
    """The whole SHA-256 of the block."""
    offset: int
    size: int


def write_blocks(
    directory: Path, manifest: Manifest, map_file: BinaryIO, blocks: BinaryIO
) -> list[PackedBlock]:
    """Write the map and the blocks of the image in `directory`; return where its disk's blocks are.

    Raises OSError.
    """
    text = manifest.encode()
    stored = _deflated(text)
    map_file.write(_MAGIC + _HEAD.pack(len(stored), len(text)) + stored)
    seen: dict[bytes, tuple[int, int]] = {}
    packed_blocks = []
    end = 0
    for file in manifest.files:
        with (directory / file.name).open("rb") as stream:
            for _, block in numbered(stream):
                digest = hashlib.sha256(block).digest()
                name, size = digest[:NAME_BYTES], 0
                if name not in seen:
                    packed = _deflated(block)
                    size = len(packed)
                    blocks.write(packed)
                    seen[name] = end, size
                    end += size
                map_file.write(_ENTRY.pack(name, size))
                if file.name == ROOT:
                    packed_blocks.append(PackedBlock(digest, *seen[name]))
    return packed_blocks


def _name(block: bytes) -> bytes:
    return hashlib.sha256(block).digest()[:NAME_BYTES]


def _deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


@dataclass(frozen=True, slots=True)
class BlockMap:
    """A map that was read."""

    manifest: Manifest
    names: tuple[tuple[bytes, ...], ...]
    """Of the blocks of each file."""
    places: dict[bytes, tuple[int, int]]
    """The offset of each block in the file of blocks, and its size there."""
    size: int
    """Of the file of blocks."""


def read_map(data: bytes, digest: str, name: str) -> BlockMap:
    """Read the map of the image `digest`; `name` is for messages. Raises ImageDamagedError."""
    damaged = ImageDamagedError(f"{name} is damaged")
    at = len(_MAGIC) + _HEAD.size
    if len(data) < at or not data.startswith(_MAGIC):
        raise damaged
    stored, size = _HEAD.unpack_from(data, len(_MAGIC))
    text = _inflated(data[at : at + stored], size, damaged) if size <= MOST_BYTES else b""
    if hashlib.sha256(text).hexdigest() != digest:
        raise damaged
    manifest = decode_manifest(text, Path(name))
    if not manifest.is_canonical(text) or manifest.size > MOST_IMAGE_BYTES:
        raise damaged
    at += stored
    counts = [-(-file.size // BLOCK) for file in manifest.files]
    if len(data) - at != sum(counts) * _ENTRY.size:
        raise damaged
    names, places, offset = [], {}, 0
    for count in counts:
        found = []
        for block, length in _ENTRY.iter_unpack(data[at : at + count * _ENTRY.size]):
            if (length == 0) != (block in places):
                raise damaged
            if length:
                places[block] = (offset, length)
                offset += length
            found.append(block)
        at += count * _ENTRY.size
        names.append(tuple(found))
    return BlockMap(manifest, tuple(names), places, offset)


def _inflated(data: bytes, size: int, damaged: ImageDamagedError) -> bytes:
    """Expand `data` to exactly `size` bytes, and no further."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflate.decompress(data, size + 1)
    except zlib.error as error:
        raise damaged from error
    if len(plain) != size or not inflate.eof or inflate.unused_data:
        raise damaged
    return plain


Location = tuple[Path, int]
"""A file of this host, and a block's number in it."""


def find_local(wanted: BlockMap, files: Sequence[Path]) -> dict[bytes, Location]:
    """Return where blocks of an image are in `files` of this host. Raises OSError."""
    found: dict[bytes, Location] = {}
    for path in files:
        with path.open("rb") as stream:
            for number, block in numbered(stream):
                name = _name(block)
                if name in wanted.places:
                    found.setdefault(name, (path, number))
    return found


def missing_ranges(wanted: BlockMap, local: dict[bytes, Location]) -> list[tuple[int, int]]:
    """Return which parts of the file of blocks are to be read: (begin, end), in order."""
    ranges: list[tuple[int, int]] = []
    for name, (offset, size) in wanted.places.items():
        if name in local:
            continue
        if ranges:
            begin, end = ranges[-1]
            if offset - end <= LONGEST_GAP and offset + size - begin <= LONGEST_RANGE:
                ranges[-1] = begin, offset + size
                continue
        ranges.append((offset, offset + size))
    return ranges


def make_image(
    wanted: BlockMap,
    local: dict[bytes, Location],
    read: Callable[[int, int], Iterator[bytes]],
    fetched: Path,
    target: Path,
    name: str,
) -> None:
    """Make the files of an image in the directory `target`.

    `read` reads a part of the file of blocks, which `name` names in messages. What it returns is
    kept in the file `fetched` until the end, and not read again. Raises ImageDamagedError, OSError,
    and what `read` raises.
    """
    damaged = ImageDamagedError(f"{name} is damaged")
    local = dict(local)
    with fetched.open("ab+") as keep:
        _read_missing(wanted, local, read, keep, fetched, damaged)
        for file, names in zip(wanted.manifest.files, wanted.names, strict=True):
            _make_file(file, names, local, target / file.name, damaged)


def _read_missing(
    wanted: BlockMap,
    local: dict[bytes, Location],
    read: Callable[[int, int], Iterator[bytes]],
    keep: BinaryIO,
    path: Path,
    damaged: ImageDamagedError,
) -> None:
    """Read the blocks that are not here, each into BLOCK bytes of `keep`, which is at `path`."""
    at = keep.seek(0, 2) // BLOCK
    keep.truncate(at * BLOCK)
    order = [(offset, size, name) for name, (offset, size) in wanted.places.items()]
    position = 0
    for begin, end in missing_ranges(wanted, local):
        data = b"".join(read(begin, end))
        while position < len(order) and order[position][0] < end:
            offset, size, name = order[position]
            position += 1
            if name in local or offset < begin:
                continue
            plain = expanded(data[offset - begin : offset - begin + size], damaged)
            if _name(plain) != name:
                raise damaged
            keep.write(plain.ljust(BLOCK, b"\0"))
            local[name] = (path, at)
            at += 1
    keep.flush()


def expanded(data: bytes, damaged: ImageDamagedError) -> bytes:
    """Return what a compressed block was. Raises `damaged`."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflate.decompress(data, BLOCK + 1)
    except zlib.error as error:
        raise damaged from error
    if len(plain) > BLOCK or not inflate.eof or inflate.unused_data:
        raise damaged
    return plain


def _make_file(
    file: ContentFile,
    names: tuple[bytes, ...],
    local: dict[bytes, Location],
    target: Path,
    damaged: ImageDamagedError,
) -> None:
    digest, left = hashlib.sha256(), file.size
    opened: dict[Path, BinaryIO] = {}
    try:
        with target.open("xb") as stream:
            for name in names:
                path, number = local[name]
                if path not in opened:
                    opened[path] = path.open("rb")
                opened[path].seek(number * BLOCK)
                block = opened[path].read(min(BLOCK, left))
                digest.update(block)
                stream.write(block)
                left -= len(block)
            if left or digest.hexdigest() != file.sha256:
                raise damaged
            finish_file(stream)
    finally:
        for source in opened.values():
            source.close()
