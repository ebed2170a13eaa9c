"""QEMU's migration stream, as far as it carries memory.

    head      magic, version, the configuration section
    START     section "ram": the memory's blocks
    PART …    pages
    COMMAND   the guest is stopped: since QEMU 10.0
    END       pages
    tail      the devices' state, which is not parsed

Format: docs/devel/migration.rst, migration/savevm.c and migration/ram.c of QEMU 7.2, whose stream
later versions read and write as well. Numbers are big-endian. The guest controls the bytes in
QEMU's stream but not its structure; the structure is checked all the same.
"""

import struct
from typing import BinaryIO, NamedTuple, Protocol

PAGE = 4096
_MAGIC, _VERSION = 0x5145564D, 3
_MARK_SIZE = 8
_CONFIGURATION, _START, _PART, _END, _SUBSECTION, _FOOTER = 0x07, 0x01, 0x02, 0x03, 0x05, 0x7E
_COMMAND, _SWITCHOVER_START = 0x08, b"\x00\x0b\x00\x00"
"""A command has a number and a length, two bytes each."""
_RAM = b"ram"
_PAGE_BITS = b"configuration/target-page-bits"
_ZERO, _SIZES, _PAGE, _EOS, _CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
_FLAGS = PAGE - 1
_LARGEST_TAIL = 64 << 20
_MOST_BLOCKS = 64
_LARGEST_BLOCK = 1 << 40
_WORD = struct.Struct(">Q")
_LONG = struct.Struct(">I")


class StreamError(Exception):
    """The stream is not one that we understand."""


class Block(NamedTuple):
    """A part of the machine's memory."""

    name: bytes
    """Its name in the stream."""
    size: int
    """Bytes."""


class Frame(NamedTuple):
    """Everything in a stream except the pages."""

    head: bytes
    section: int
    """The number of the section "ram"."""
    instance: int
    """Of the section "ram"."""
    version: int
    """Of the section "ram"."""
    blocks: tuple[Block, ...]
    tail: bytes


def with_machine_type(stream: bytes, machine_type: str, *, has_page_size: bool) -> bytes:
    """Return a stream, or the beginning of one, with the name of the machine type in it.

    QEMU leaves out this section, the configuration, where it saves the devices alone
    (`xen-save-devices-state`); and a QEMU that is told to do without it, by `send-configuration`,
    aborts from 10.0 on (at the latest) when it sends its own state. `has_page_size`: the target has
    pages of several sizes, and its streams say which.
    """
    if stream[_MARK_SIZE : _MARK_SIZE + 1] == bytes([_CONFIGURATION]):
        return stream
    name = machine_type.encode()
    section = bytes([_CONFIGURATION]) + _LONG.pack(len(name)) + name
    if has_page_size:
        section += bytes([_SUBSECTION, len(_PAGE_BITS)]) + _PAGE_BITS
        section += _LONG.pack(1) + _LONG.pack(PAGE.bit_length() - 1)
    return stream[:_MARK_SIZE] + section + stream[_MARK_SIZE:]


class PageSink(Protocol):
    """Receives pages as they come; a page may come again, and then the last one counts."""

    def begin(self, blocks: tuple[Block, ...]) -> None: ...

    def page(self, block: int, number: int, data: bytes) -> None: ...

    def zero(self, block: int, number: int) -> None:
        """Receive a page of zeros."""


def read_stream(source: BinaryIO, sink: PageSink) -> Frame:
    """Read the buffered stream `source` to its end. Raises StreamError, OSError."""
    return _Reader(source, sink).read()


class _Reader:
    def __init__(self, source: BinaryIO, sink: PageSink) -> None:
        self._source = source
        self._sink = sink
        self._section = 0
        self._block = -1  # "the same block" is valid across sections

    def _read_exactly(self, count: int) -> bytes:
        data = self._source.read(count)
        if len(data) != count:
            raise StreamError("it ends prematurely")
        return data

    def _uint64(self) -> int:
        return int(_WORD.unpack(self._read_exactly(8))[0])

    def _uint32(self) -> int:
        return int(_LONG.unpack(self._read_exactly(4))[0])

    def read(self) -> Frame:
        head = self._head()
        self._section = self._uint32()
        if self._read_exactly(self._read_exactly(1)[0]) != _RAM:
            raise StreamError("it does not begin with memory")
        instance, version = self._uint32(), self._uint32()
        blocks = self._blocks()
        self._footer()
        self._sink.begin(blocks)
        kind = _PART
        while kind != _END:
            kind = self._read_exactly(1)[0]
            if kind == _COMMAND and self._read_exactly(4) == _SWITCHOVER_START:
                continue  # only devices that we never have take notice of it
            if kind not in (_PART, _END) or self._uint32() != self._section:
                raise StreamError("something else comes before the end of the memory")
            self._pages(blocks)
            self._footer()
        tail = self._source.read(_LARGEST_TAIL)
        if len(tail) == _LARGEST_TAIL:
            raise StreamError("the devices' state is too large")
        return Frame(head, self._section, instance, version, blocks, tail)

    def _head(self) -> bytes:
        head = self._read_exactly(_MARK_SIZE)
        if struct.unpack(">II", head) != (_MAGIC, _VERSION):
            raise StreamError("it does not begin with QEMU's magic number")
        kind = self._read_exactly(1)
        if kind[0] == _CONFIGURATION:
            length = self._read_exactly(4)
            if (size := _LONG.unpack(length)[0]) > 256:
                raise StreamError("the name of its machine is too long")
            head += kind + length + self._read_exactly(size)
            kind = self._read_exactly(1)
            if kind[0] == _SUBSECTION:
                head += kind + self._page_size()
                kind = self._read_exactly(1)
        if kind[0] != _START:
            raise StreamError("its configuration is unknown")
        return head

    def _page_size(self) -> bytes:
        """Read the subsection that a target has whose pages may be of several sizes: AArch64."""
        length = self._read_exactly(1)
        name, version, bits = (
            self._read_exactly(length[0]),
            self._read_exactly(4),
            self._read_exactly(4),
        )
        if name != _PAGE_BITS or _LONG.unpack(bits)[0] != PAGE.bit_length() - 1:
            raise StreamError("its configuration is unknown")
        return length + name + version + bits

    def _blocks(self) -> tuple[Block, ...]:
        word = self._uint64()
        if word & _FLAGS != _SIZES:
            raise StreamError("it does not say how much memory there is")
        total = word & ~_FLAGS
        blocks: list[Block] = []
        while total > 0 and len(blocks) < _MOST_BLOCKS:
            name = self._read_exactly(self._read_exactly(1)[0])
            size = self._uint64()
            if size % PAGE or not 0 < size <= _LARGEST_BLOCK:
                raise StreamError(f"a block of {size} bytes")
            blocks.append(Block(name, size))
            total -= size
        if total or self._uint64() != _EOS:
            raise StreamError("its blocks do not add up")
        return tuple(blocks)

    def _pages(self, blocks: tuple[Block, ...]) -> None:
        """Read the pages of one section."""
        names = {block.name: index for index, block in enumerate(blocks)}
        limits = [block.size // PAGE for block in blocks]
        page, zero, read, unpack = self._sink.page, self._sink.zero, self._source.read, _WORD.unpack
        block = self._block
        while True:
            header = read(8)
            if len(header) != 8:
                raise StreamError("it ends prematurely")
            (word,) = unpack(header)
            flags = word & _FLAGS
            if flags == _EOS:
                self._block = block
                return
            if flags not in (_PAGE, _ZERO, _PAGE | _CONTINUE, _ZERO | _CONTINUE):
                raise StreamError(f"pages of an unknown kind ({flags:#x})")
            if not flags & _CONTINUE:
                block = names.get(self._read_exactly(self._read_exactly(1)[0]), -1)
            number = word >> 12
            if block < 0 or number >= limits[block]:
                raise StreamError("a page outside all blocks")
            if flags & _PAGE:
                page(block, number, self._read_exactly(PAGE))
            elif read(1) == b"\0":
                zero(block, number)
            else:
                raise StreamError("a page filled with something other than zeros")

    def _footer(self) -> None:
        if self._read_exactly(1)[0] != _FOOTER or self._uint32() != self._section:
            raise StreamError("a section does not end where it should")


class StreamWriter:
    """Writes a stream: `begin`, pages, `end`."""

    def __init__(self, target: BinaryIO, frame: Frame) -> None:
        """Prepare to write to the buffered `target`."""
        self._target = target
        self._frame = frame
        self._block = -1

    def begin(self) -> None:
        frame = self._frame
        total = sum(block.size for block in frame.blocks)
        parts = [frame.head, bytes([_START]), _LONG.pack(frame.section), bytes([len(_RAM)]), _RAM]
        parts += [_LONG.pack(frame.instance), _LONG.pack(frame.version), _WORD.pack(total | _SIZES)]
        for block in frame.blocks:
            parts += [bytes([len(block.name)]), block.name, _WORD.pack(block.size)]
        parts += [_WORD.pack(_EOS), self._footer(), bytes([_PART]), _LONG.pack(frame.section)]
        self._target.write(b"".join(parts))

    def pages(self, block: int, number: int, data: memoryview) -> None:
        """Write consecutive pages, the first one with that number in its block."""
        write = self._target.write
        for at in range(0, len(data), PAGE):
            word = number << 12 | _PAGE
            if block == self._block:
                write(_WORD.pack(word | _CONTINUE))
            else:
                name = self._frame.blocks[block].name
                write(_WORD.pack(word) + bytes([len(name)]) + name)
                self._block = block
            write(data[at : at + PAGE])
            number += 1

    def end(self) -> None:
        section = _LONG.pack(self._frame.section)
        end = bytes([_END]) + section + _WORD.pack(_EOS) + self._footer()
        self._target.write(_WORD.pack(_EOS) + self._footer() + end + self._frame.tail)

    def _footer(self) -> bytes:
        return bytes([_FOOTER]) + _LONG.pack(self._frame.section)
