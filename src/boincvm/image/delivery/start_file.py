"""What a machine needs to start at once, and to read its disk on demand.

    "boincvm start 1\n", and one stream of xz:
    the size of the manifest (32 bits), and the manifest
    initrd, kernel
    the size of each block of the root disk in the file of blocks (16 bits)
    where each is there: its distance from the end of the last one before it that was new (64 bits,
        signed); 0 if it comes next, negative if it is there for an earlier block, too
    DIGEST_BYTES of the SHA-256 of each block

Numbers have the lowest byte first. The file of blocks is that of blocks.py. A block is used before
the disk is complete, so its name must stand against an attacker, as the 8 bytes in a map need not.
"""

import hashlib
import lzma
import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from boincvm.errors import ImageDamagedError
from boincvm.image.delivery.blocks import MOST_IMAGE_BYTES, PackedBlock
from boincvm.image.delivery.patch import BLOCK
from boincvm.image.manifest import (
    MOST_BYTES,
    ROOT,
    ContentFile,
    Manifest,
    decode_manifest,
)
from boincvm.image.pack_format import finish_file

DIGEST_BYTES = 16
_MAGIC = b"boincvm start 1\n"
_SIZE = struct.Struct("<I")
_SECTOR = 512
_PIECE = 1 << 20
_LARGEST_BLOCK = BLOCK + 64
"""Bytes of a block that became no smaller."""
_MOST_MEMORY = 64 << 20
"""Bytes for expanding; what we write needs 2 MiB."""
_PRESET = 1
"""3.8 s and 9.2 MB for Debian's kernel; 0 makes 9.5 MB, and gzip 10.8."""


def can_be_on_demand(manifest: Manifest) -> bool:
    """Tell whether an image's disk can be read in parts; any that we have built can."""
    return manifest.size <= MOST_IMAGE_BYTES and manifest.file(ROOT).size % _SECTOR == 0


@dataclass(frozen=True, slots=True)
class RootBlocks:
    """Where each block of a root disk is in the file of blocks, and what it must be."""

    size: int
    """Bytes of the disk."""
    blocks_size: int
    """Bytes of the file of blocks."""
    sizes: "array[int]"
    jumps: "array[int]"
    digests: bytes

    @property
    def count(self) -> int:
        return len(self.sizes)

    def digest(self, number: int) -> bytes:
        return self.digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]

    def is_block(self, number: int, content: bytes | memoryview) -> bool:
        """Tell whether `content` is block `number`."""
        return block_digest(content) == self.digest(number)

    def offsets(self) -> "array[int]":
        """Return where each block begins. Raises ValueError if one is outside of the file."""
        offsets = array("q")
        end = 0
        for size, jump in zip(self.sizes, self.jumps, strict=True):
            offset = end + jump
            if not 0 <= offset <= offset + size <= self.blocks_size or not size:
                raise ValueError("a block is outside of the file of blocks")
            offsets.append(offset)
            end = offset + size if jump >= 0 else end
        return offsets

    def encode(self) -> bytes:
        """Return the bytes of the three columns."""
        return _little(self.sizes) + _little(self.jumps) + self.digests


def block_digest(content: bytes | memoryview) -> bytes:
    """Return what a block is known by."""
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def decode_root_blocks(data: bytes, size: int, blocks_size: int) -> RootBlocks:
    """Return what `RootBlocks.encode` has made for a disk of `size` bytes. Raises ValueError."""
    count = -(-size // BLOCK)
    if len(data) != columns_size(size):
        raise ValueError("there are other blocks than the disk has")
    sizes, jumps = _array("H", data[: 2 * count]), _array("q", data[2 * count : 10 * count])
    if any(one > _LARGEST_BLOCK for one in sizes):
        raise ValueError("a block is too large")
    return RootBlocks(size, blocks_size, sizes, jumps, data[10 * count :])


def columns_size(size: int) -> int:
    """Return how many bytes `RootBlocks.encode` makes for a disk of `size` bytes."""
    return -(-size // BLOCK) * (2 + 8 + DIGEST_BYTES)


def _little(numbers: "array[int]") -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def _array(kind: str, data: bytes) -> "array[int]":
    numbers = array(kind, data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def write_start(
    directory: Path, manifest: Manifest, packed_blocks: Sequence[PackedBlock], stream: BinaryIO
) -> None:
    """Write the file for the image in `directory`, whose disk's blocks are at `packed_blocks`.

    Raises OSError.
    """
    sizes, jumps, digests = array("H"), array("q"), bytearray()
    end = 0  # the file of blocks begins with those of initrd and kernel
    for block in packed_blocks:
        jump = block.offset - end
        sizes.append(block.size)
        jumps.append(jump)
        digests += block.digest[:DIGEST_BYTES]
        if jump >= 0:
            end = block.offset + block.size
    text = manifest.encode()
    stream.write(_MAGIC)
    with lzma.LZMAFile(stream, "wb", check=lzma.CHECK_NONE, preset=_PRESET) as packed:
        packed.write(_SIZE.pack(len(text)) + text)
        for file in manifest.files:
            if file.name != ROOT:
                with (directory / file.name).open("rb") as source:
                    while piece := source.read(_PIECE):
                        packed.write(piece)
        packed.write(RootBlocks(0, 0, sizes, jumps, bytes(digests)).encode())


def read_start(
    stream: BinaryIO, digest: str, blocks_size: int, directory: Path, name: str
) -> tuple[Manifest, RootBlocks]:
    """Read the file of the image `digest`, and write its kernel and initrd into `directory`.

    `blocks_size`: bytes of the file of blocks; `name` is for messages. Raises ImageDamagedError,
    OSError.
    """
    try:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("it has another format")
        reader = _Reader(stream)
        (size,) = _SIZE.unpack(reader.read(_SIZE.size))
        if size > MOST_BYTES:
            raise ValueError("its manifest is too large")
        text = reader.read(size)
        if hashlib.sha256(text).hexdigest() != digest:
            raise ValueError("it is of another image")
        manifest = decode_manifest(text, Path(name))
        if not manifest.is_canonical(text) or not can_be_on_demand(manifest):
            raise ValueError("its manifest is refused")
        for file in manifest.files:
            if file.name != ROOT:
                _copy(reader, file, directory / file.name)
        root = manifest.file(ROOT)
        columns = reader.read(columns_size(root.size))
        reader.finish()
        blocks = decode_root_blocks(columns, root.size, blocks_size)
        blocks.offsets()
    except (ValueError, EOFError, lzma.LZMAError) as error:
        raise ImageDamagedError(f"{name} is damaged: {error}") from error
    return manifest, blocks


def _copy(reader: "_Reader", file: ContentFile, target: Path) -> None:
    digest, left = hashlib.sha256(), file.size
    with target.open("xb") as stream:
        while left:
            piece = reader.read(min(left, _PIECE))
            digest.update(piece)
            stream.write(piece)
            left -= len(piece)
        if digest.hexdigest() != file.sha256:
            raise ValueError(f"its {file.name} was altered")
        finish_file(stream)


class _Reader:
    """Expands a stream, never more than was asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises EOFError, LZMAError, OSError."""
        found = bytearray()
        while len(found) < size:
            if self._lzma.eof:
                raise EOFError("it is too short")
            found += self._more(size - len(found))
        return bytes(found)

    def _more(self, most: int) -> bytes:
        data = b""
        if self._lzma.needs_input and not (data := self._stream.read(_PIECE)):
            raise EOFError("it was cut off")
        return self._lzma.decompress(data, most)

    def finish(self) -> None:
        """Raise ValueError if anything follows."""
        while not self._lzma.eof:
            if self._more(1):
                raise ValueError("it is too long")
        if self._lzma.unused_data or self._stream.read(1):
            raise ValueError("something follows its end")
