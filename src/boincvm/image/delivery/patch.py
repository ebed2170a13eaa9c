"""Patches: the blocks of a new image that an old one lacks, and where it has the others.

Files in an image's disk begin at multiples of 4 KiB, and so do most other things. What a rebuilt
image shares with its predecessor is therefore found by comparing blocks of 4 KiB, at whatever
place; the rest is compressed in segments. Both sides need little memory, however large the image
is. Measured against other ways in docs/images.md.

    "boincvm patch 1\\n"
    a record: the new manifest
    for each file of the manifest:
        a record: runs of blocks, each (first block of the old file or NEW, number of blocks)
        records: the new blocks, SEGMENT bytes in each but the last

A record is two numbers, the bytes it has here and the bytes it stands for, and raw LZMA2. Numbers
have 32 bits, the lowest byte first. The last block of a file may be short.
"""

import hashlib
import lzma
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from boincvm.errors import ImageDamagedError
from boincvm.image.manifest import MOST_BYTES, ContentFile, Manifest, decode_manifest
from boincvm.image.pack_format import MOST_IMAGE_BYTES, finish_file

BLOCK = 4096
SEGMENT = 8 << 20
_MAGIC = b"boincvm patch 1\n"
_NEW = (1 << 32) - 1
_RUN = struct.Struct("<II")
_MOST_RUN_BYTES = (MOST_IMAGE_BYTES // BLOCK + 1) * _RUN.size
_PIECE = 256
"""Blocks that are copied at a time."""
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 8 << 20}]


def write_patch(base: Path, new: Path, manifest: Manifest, stream: BinaryIO) -> None:
    """Write to `stream` what makes the image in the directory `new`, of `manifest`, from `base`.

    Raises OSError.
    """
    stream.write(_MAGIC)
    _write_record(stream, manifest.encode())
    for file in manifest.files:
        with (base / file.name).open("rb") as old:
            places = {hashlib.sha256(block).digest(): at for at, block in numbered(old)}
        with (new / file.name).open("rb") as source:
            runs = _runs(source, places)
            _write_record(stream, b"".join(_RUN.pack(*run) for run in runs))
            segment = bytearray()
            at = 0
            for first, count in runs:
                if first == _NEW:
                    source.seek(at * BLOCK)
                    left = count * BLOCK
                    while left and (piece := source.read(min(left, SEGMENT - len(segment)))):
                        segment += piece
                        left -= len(piece)
                        if len(segment) == SEGMENT:
                            _write_record(stream, bytes(segment))
                            segment.clear()
                at += count
            if segment:
                _write_record(stream, bytes(segment))


def numbered(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Read the blocks of a file, each with its number. Raises OSError."""
    at = 0
    while block := stream.read(BLOCK):
        yield at, block
        at += 1


def _runs(source: BinaryIO, places: dict[bytes, int]) -> list[tuple[int, int]]:
    """Return where the blocks of `source` are in the old file; `places`: of each block there."""
    runs: list[tuple[int, int]] = []
    for _, block in numbered(source):
        at = places.get(hashlib.sha256(block).digest(), _NEW)
        if runs:
            first, count = runs[-1]
            if at == (_NEW if first == _NEW else first + count):
                runs[-1] = first, count + 1
                continue
        runs.append((at, 1))
    return runs


def _write_record(stream: BinaryIO, data: bytes) -> None:
    stored = lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)
    stream.write(_RUN.pack(len(stored), len(data)) + stored)


def apply_patch(patch: BinaryIO, base: Path, digest: str, target: Path, name: str) -> Manifest:
    """Make the files of the image `digest` in the directory `target` from those in `base`.

    Each is compared with its digest. `name` is the patch's, for messages. Returns the manifest.
    Raises ImageDamagedError, OSError.
    """
    reader = _Reader(patch, name)
    manifest = _manifest(reader, digest)
    for file in manifest.files:
        with (
            (base / file.name).open("rb") as old,
            (target / file.name).open("xb") as stream,
        ):
            _make_file(reader, old, file, stream)
            finish_file(stream)
    reader.expect_end()
    return manifest


def patched_manifest(patch: BinaryIO, digest: str, name: str) -> Manifest:
    """Return the manifest of the image `digest` that a patch makes; only its beginning is read.

    Raises ImageDamagedError, OSError.
    """
    return _manifest(_Reader(patch, name), digest)


def _manifest(reader: "_Reader", digest: str) -> Manifest:
    reader.expect_magic()
    text = reader.record(MOST_BYTES)
    if hashlib.sha256(text).hexdigest() != digest:
        raise reader.damaged("it makes another image")
    manifest = decode_manifest(text, Path(reader.name))
    if not manifest.is_canonical(text):
        raise reader.damaged("its manifest is not canonical")
    if manifest.size > MOST_IMAGE_BYTES:
        raise reader.damaged("its image is too large")
    return manifest


def _make_file(reader: "_Reader", old: BinaryIO, file: ContentFile, stream: BinaryIO) -> None:
    table = reader.record(_MOST_RUN_BYTES)
    if len(table) % _RUN.size:
        raise reader.damaged("a list of runs is incomplete")
    left, digest = file.size, hashlib.sha256()
    segment = memoryview(b"")
    for first, count in _RUN.iter_unpack(table):
        size = min(count * BLOCK, left)
        if not count or count * BLOCK >= left + BLOCK:
            raise reader.damaged(f"it makes another size of {file.name}")
        left -= size
        if first != _NEW:
            old.seek(first * BLOCK)
        while size:
            if first == _NEW:
                if not segment:
                    segment = memoryview(reader.record(SEGMENT))
                piece = segment[:size]
                segment = segment[len(piece) :]
            else:
                piece = memoryview(old.read(min(size, _PIECE * BLOCK)))
            if not piece:
                raise reader.damaged(f"blocks for {file.name} are missing")
            digest.update(piece)
            stream.write(piece)
            size -= len(piece)
    if left or segment or digest.hexdigest() != file.sha256:
        raise reader.damaged(f"it makes another {file.name}")


class _Reader:
    """Reads a patch, which messages call `name`."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self.name = name

    def damaged(self, what: str) -> ImageDamagedError:
        return ImageDamagedError(f"{self.name} is damaged: {what}")

    def expect_magic(self) -> None:
        if self._stream.read(len(_MAGIC)) != _MAGIC:
            raise self.damaged("it is not a patch")

    def expect_end(self) -> None:
        if self._stream.read(1):
            raise self.damaged("something follows its end")

    def record(self, most: int) -> bytes:
        """Read a record that stands for at most `most` bytes."""
        head = self._stream.read(_RUN.size)
        if len(head) != _RUN.size:
            raise self.damaged("it ends too early")
        stored, size = _RUN.unpack(head)
        # LZMA2 stores what cannot be compressed with three bytes for each 64 KiB.
        if size > most or stored > size + size // 4096 + 64:
            raise self.damaged("it claims too much")
        data = self._stream.read(stored)
        if len(data) != stored:
            raise self.damaged("it ends too early")
        expand = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        try:
            plain = expand.decompress(data, size + 1)
        except (lzma.LZMAError, EOFError) as error:
            raise self.damaged("it cannot be expanded") from error
        if len(plain) != size or not expand.eof or expand.unused_data:
            raise self.damaged("a part has another size")
        return plain
