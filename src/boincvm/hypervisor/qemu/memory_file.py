"""A machine's memory on disk: one file per checkpoint, with the pages that changed since another.

    pages      4096 bytes each, in order of arrival; none that is all zeros
    tail       the devices' state
    table      compressed: for each page its digest, its file and its offset there
    meta       JSON: the blocks of memory, the chain of files, the lengths of the above
    trailer    magic, offset of the tail, length of meta, digest of tail, table and meta

The newest file's table refers to all pages, in this file or an earlier one of its chain. Numbers
are little-endian.
"""

import hashlib
import json
import os
import re
import struct
import zlib
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypedDict

from boincvm.host.files import open_regular, read_at
from boincvm.hypervisor.qemu.stream import PAGE, Block, Frame, StreamWriter

MARK = b"BVMMEM1\n"
_TRAILER = struct.Struct("<8sQI32s")
_DIGEST = 16
_MOST_FILES = 64
_LARGEST_META = 1 << 20
_LARGEST_TAIL = 64 << 20
_LARGEST_MEMORY = 1 << 40
"""Maximum bytes of all blocks of a machine's memory."""
_OTHER_MEMORY = 192 << 20
"""Maximum bytes that a machine has beside its main memory: firmware and video memory. A machine for
AArch64 has 128 MiB of flash memory, all zeros."""
_SLACK = 1 << 16
"""Bytes by which compression may enlarge a table."""
BUFFER = 1 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RUN = 256
"""Pages that are read at once."""


class MemoryFileError(Exception):
    """The file differs from what was written."""


class Summary(NamedTuple):
    """What is in a memory file."""

    chain: tuple[str, ...]
    """The files that hold live pages, this one the last."""
    live: int
    """Bytes of memory that are not zero."""
    written: int
    """Size of this file in bytes."""
    digest: str
    """256-bit BLAKE2b of this file, in hexadecimal."""


class _Table:
    """The pages of one block: digest, file (place in the chain, from 1; 0: zeros) and offset."""

    def __init__(self, pages: int) -> None:
        self.digests = bytearray(_DIGEST * pages)
        self.files = array("H", bytes(2 * pages))
        self.offsets = array("Q", bytes(8 * pages))

    def encoded(self) -> bytes:
        return bytes(self.digests) + self.files.tobytes() + self.offsets.tobytes()

    @staticmethod
    def size(pages: int) -> int:
        return (_DIGEST + 2 + 8) * pages

    @classmethod
    def decoded(cls, data: memoryview, pages: int) -> "_Table":
        table = cls(0)
        table.digests = bytearray(data[: _DIGEST * pages])
        table.files.frombytes(data[_DIGEST * pages : (_DIGEST + 2) * pages])
        table.offsets.frombytes(data[(_DIGEST + 2) * pages :])
        return table


class MemoryWriter:
    """Takes the pages of a stream (stream.PageSink) and writes the new ones."""

    def __init__(self, directory: Path, name: str, base: str | None) -> None:
        """Open the file; `base` is the previous checkpoint's. Raises OSError, MemoryFileError."""
        self._base = MemoryImage.read(directory, base) if base is not None else None
        self._chain = [*(self._base.chain if self._base else ()), name]
        self._file = (directory / name).open("xb", buffering=BUFFER)
        self._hash = hashlib.blake2b(digest_size=32)
        self._at = 0
        self._tables: list[_Table] = []
        self._own = len(self._chain)

    def begin(self, blocks: tuple[Block, ...]) -> None:
        if self._base is not None:
            if self._base.frame.blocks != blocks:
                raise MemoryFileError("the previous checkpoint belongs to another machine")
            self._tables = self._base.tables
        else:
            self._tables = [_Table(block.size // PAGE) for block in blocks]

    def page(self, block: int, number: int, data: bytes) -> None:
        table, at = self._tables[block], number * _DIGEST
        digest = hashlib.blake2b(data, digest_size=_DIGEST).digest()
        if table.digests[at : at + _DIGEST] == digest and table.files[number]:
            return
        table.digests[at : at + _DIGEST] = digest
        table.files[number], table.offsets[number] = self._own, self._at
        self._write(data)

    def zero(self, block: int, number: int) -> None:
        self._tables[block].files[number] = 0

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._at += len(data)

    def finish(self, frame: Frame) -> Summary:
        """Complete the file and sync it to the disk. Raises OSError."""
        chain = self._shorten_chain()
        table = zlib.compress(b"".join(table.encoded() for table in self._tables), 1)
        meta = json.dumps(
            {
                "blocks": [[block.name.hex(), block.size] for block in frame.blocks],
                "chain": chain,
                "head": frame.head.hex(),
                "ram": [frame.section, frame.instance, frame.version],
                "tail": len(frame.tail),
                "table": len(table),
            }
        ).encode()
        begin = self._at
        end = hashlib.blake2b(digest_size=32)
        for part in (frame.tail, table, meta):
            end.update(part)
            self._write(part)
        self._write(_TRAILER.pack(MARK, begin, len(meta), end.digest()))
        self._file.flush()
        os.fsync(self._file.fileno())
        live = sum(len(table.files) - table.files.count(0) for table in self._tables) * PAGE
        return Summary(tuple(chain), live, self._at, self._hash.hexdigest())

    def _shorten_chain(self) -> list[str]:
        """Return the chain without the files that hold no live page."""
        used = set().union(*(set(table.files) for table in self._tables)) | {self._own}
        used_files = [file_number for file_number in range(1, self._own + 1) if file_number in used]
        if len(used_files) > _MOST_FILES:
            raise MemoryFileError("too many files")
        if len(used_files) < self._own:
            file_numbers = {old: new for new, old in enumerate(used_files, 1)} | {0: 0}
            for table in self._tables:
                table.files = array("H", map(file_numbers.__getitem__, table.files))
        return [self._chain[file_number - 1] for file_number in used_files]

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()


class MemoryImage:
    """The memory that a file and its chain hold; made by `read`."""

    def __init__(
        self, directory: Path, frame: Frame, chain: tuple[str, ...], tables: list[_Table]
    ) -> None:
        self._directory = directory
        self.frame = frame
        self.chain = chain
        self.tables = tables

    @classmethod
    def read(cls, directory: Path, name: str, memory: int | None = None) -> "MemoryImage":
        """Read the end of the file, which describes the rest.

        `memory` is the size of the machine's memory; a file that claims much more is refused.
        Raises MemoryFileError, OSError.
        """
        try:
            with BufferedReader(open_regular(directory / name)) as file:
                meta, tail, table = _read_end(file, memory)
            frame = _frame(meta, tail)
            chain = tuple(_file_name(number) for number in meta["chain"])
            tables = _decode(table, frame.blocks)
        except (
            *(ValueError, KeyError, TypeError, OverflowError, RecursionError),
            *(MemoryError, struct.error, zlib.error),
        ) as error:
            raise MemoryFileError(f"{name} is damaged: {error}") from error
        if not chain or chain[-1] != name or len(chain) > _MOST_FILES:
            raise MemoryFileError(f"{name} is damaged: its chain does not end with it")
        if any(max(table.files, default=0) > len(chain) for table in tables):
            raise MemoryFileError(f"{name} is damaged: a page is in none of the files")
        return cls(directory, frame, chain, tables)

    def write_stream(self, descriptor: int) -> None:
        """Write the stream to a blocking descriptor. Raises MemoryFileError, OSError."""
        with open(descriptor, "wb", buffering=BUFFER, closefd=False) as target:
            self.write_to(target)

    def write_to(self, target: BinaryIO) -> None:
        """Write the stream. Raises MemoryFileError, OSError."""
        with ExitStack() as stack:
            files = [
                stack.enter_context(BufferedReader(open_regular(self._directory / name)))
                for name in self.chain
            ]
            writer = StreamWriter(target, self.frame)
            writer.begin()
            for block, table in enumerate(self.tables):
                self._write_block(writer, block, table, files)
            writer.end()

    def _write_block(
        self, writer: StreamWriter, block: int, table: _Table, files: Sequence[BinaryIO]
    ) -> None:
        file_numbers, offsets, count = table.files, table.offsets, len(table.files)
        number = 0
        while number < count:
            file_number = file_numbers[number]
            if not file_number:
                number += 1
                continue
            begin, end = number, number + 1
            while (
                end < count
                and end - begin < _RUN
                and file_numbers[end] == file_number
                and offsets[end] == offsets[end - 1] + PAGE
            ):
                end += 1
            length = (end - begin) * PAGE
            data = read_at(files[file_number - 1].fileno(), length, offsets[begin])
            if len(data) != length:
                raise MemoryFileError(
                    f"{self.chain[file_number - 1]} became shorter while it was being read"
                )
            writer.pages(block, begin, memoryview(data))
            number = end


class _Meta(TypedDict):
    """The JSON object; bytes are in hexadecimal."""

    blocks: list[tuple[str, int]]
    chain: list[str]
    head: str
    ram: tuple[int, int, int]
    tail: int
    table: int


def _frame(meta: _Meta, tail: bytes) -> Frame:
    section, instance, version = map(int, meta["ram"])
    return Frame(bytes.fromhex(meta["head"]), section, instance, version, _blocks(meta), tail)


def _blocks(meta: _Meta) -> tuple[Block, ...]:
    blocks = tuple(Block(bytes.fromhex(word), int(size)) for word, size in meta["blocks"])
    if any(size <= 0 or size % PAGE for _, size in blocks):
        raise ValueError("a block of memory is not made of whole pages")
    return blocks


def _read_end(file: BinaryIO, wanted: int | None) -> tuple[_Meta, bytes, bytes]:
    """Return meta, tail and table; raise ValueError if they are not what was written.

    No more is read than the memory size in meta can account for.
    """
    size = os.fstat(file.fileno()).st_size
    at = size - _TRAILER.size
    if at < 0:
        raise ValueError("it is too short")
    file.seek(at)
    mark, begin, length, digest = _TRAILER.unpack(file.read(_TRAILER.size))
    if mark != MARK:
        raise ValueError("it does not have this version's magic number")
    if length > _LARGEST_META or not 0 <= begin <= at - length:
        raise ValueError("its end is not recorded")
    file.seek(at - length)
    meta: _Meta = json.loads(file.read(length))
    tail, table = int(meta["tail"]), int(meta["table"])
    memory = sum(block.size for block in _blocks(meta))
    most = _LARGEST_MEMORY if wanted is None else wanted + _OTHER_MEMORY
    if memory > most or not 0 <= tail <= _LARGEST_TAIL:
        raise ValueError("it contains too much")
    if not 0 <= table <= _Table.size(memory // PAGE) + _SLACK:
        raise ValueError("its table is too large")
    if tail + table + length != at - begin:
        raise ValueError("its parts do not add up")
    file.seek(begin)
    data = file.read(at - begin)
    if hashlib.blake2b(data, digest_size=32).digest() != digest:
        raise ValueError("its end differs from what was written")
    return meta, data[:tail], data[tail : tail + table]


def _decode(data: bytes, blocks: tuple[Block, ...]) -> list[_Table]:
    pages = [block.size // PAGE for block in blocks]
    expander = zlib.decompressobj()
    plain = memoryview(expander.decompress(data, sum(map(_Table.size, pages)) + 1))
    if len(plain) != sum(map(_Table.size, pages)):
        raise ValueError("its table has an unexpected size")
    tables = []
    for count in pages:
        tables.append(_Table.decoded(plain[: _Table.size(count)], count))
        plain = plain[_Table.size(count) :]
    return tables


def _file_name(value: object) -> str:
    if not isinstance(value, str) or not _FILE_NAME.fullmatch(value):
        raise ValueError("a file name is invalid")
    return value
