"""QEMU's migration stream: what it contains, and what it must not contain."""

import io
import os
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm.hypervisor.qemu import stream as qemu_stream
from boincvm.hypervisor.qemu.stream import (
    PAGE,
    Block,
    Frame,
    StreamError,
    StreamWriter,
    read_stream,
    with_machine_type,
)

MARK = b"QEVM\0\0\0\x03"
HEAD = MARK + b"\x07\0\0\0\x05pc-q3"
BLOCKS = (Block(b"pc.ram", 4 * PAGE), Block(b"vga", 2 * PAGE), Block(b"/rom@etc", PAGE))
SECTION, INSTANCE, VERSION = 2, 7, 4
ZERO, SIZES, WHOLE, EOS, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
START, PART, END = 1, 2, 3
TAIL = b"\x04\0\0\0\x09devices"
LARGEST_READ = 64 << 20
A, B, C = (bytes([value]) * PAGE for value in b"abc")


def word(value: int) -> bytes:
    return struct.pack(">Q", value)


def text(value: bytes) -> bytes:
    return bytes([len(value)]) + value


def footer(section: int = SECTION) -> bytes:
    return b"\x7e" + struct.pack(">I", section)


def setup(blocks: Iterable[Block] = BLOCKS, total: int | None = None) -> bytes:
    """Return the section that names the blocks."""
    blocks = tuple(blocks)
    if total is None:
        total = sum(block.size for block in blocks)
    section = struct.pack(">BI", START, SECTION) + text(b"ram")
    section += struct.pack(">II", INSTANCE, VERSION) + word(total | SIZES)
    section += b"".join(text(block.name) + word(block.size) for block in blocks)
    return section + word(EOS) + footer()


def page(number: int, data: bytes, name: bytes | None = None) -> bytes:
    """Return a page; `name` None: in the same block as the one before."""
    flags = WHOLE if name is not None else WHOLE | CONTINUE
    return word(number << 12 | flags) + (text(name) if name is not None else b"") + data


def zeros(number: int, name: bytes | None = None, fill: bytes = b"\0") -> bytes:
    flags = ZERO if name is not None else ZERO | CONTINUE
    return word(number << 12 | flags) + (text(name) if name is not None else b"") + fill


def section(kind: int, *pages: bytes) -> bytes:
    return struct.pack(">BI", kind, SECTION) + b"".join(pages) + word(EOS) + footer()


def stream(*sections: bytes, head: bytes = HEAD, tail: bytes = TAIL) -> bytes:
    return head + setup() + b"".join(sections) + tail


WHOLE_STREAM = stream(
    section(PART, page(0, A, b"pc.ram"), page(3, B), zeros(1, b"vga"), zeros(0)),
    section(PART, page(1, C)),
    section(END, page(0, B, b"pc.ram"), page(0, C, b"/rom@etc")),
)
PAGES = {(0, 0): B, (0, 3): B, (1, 0): None, (1, 1): C, (2, 0): C}
FRAME = Frame(HEAD, SECTION, INSTANCE, VERSION, BLOCKS, TAIL)


class Recorder:
    """Every page by block and number, None for one of zeros; `order`: how they arrived."""

    def __init__(self) -> None:
        self.blocks: tuple[Block, ...] | None = None
        self.pages: dict[tuple[int, int], bytes | None] = {}
        self.order: list[tuple[int, int]] = []

    def begin(self, blocks: tuple[Block, ...]) -> None:
        assert self.blocks is None
        self.blocks = blocks

    def page(self, block: int, number: int, data: bytes) -> None:
        assert len(data) == PAGE
        self._take(block, number, data)

    def zero(self, block: int, number: int) -> None:
        self._take(block, number, None)

    def _take(self, block: int, number: int, data: bytes | None) -> None:
        assert self.blocks is not None
        assert 0 <= number < self.blocks[block].size // PAGE
        self.order.append((block, number))
        self.pages[block, number] = data


class Source(io.BytesIO):
    """A stream of which no more may be read at once than the reader's limit."""

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert 0 <= size <= LARGEST_READ
        return super().read(size)


def parse(data: bytes) -> tuple[Frame, Recorder]:
    recorder = Recorder()
    return read_stream(Source(data), recorder), recorder


def refuse(data: bytes, reason: str) -> None:
    with pytest.raises(StreamError, match=reason):
        parse(data)


def structure() -> list[int]:
    """Return the stream without the content of pages."""
    places: list[int] = []
    at = 0
    for kind in (A, B, C, B, C):  # in the order in which they come
        begin = WHOLE_STREAM.index(kind, at)
        places += range(at, begin)
        at = begin + PAGE
    return [*places, *range(at, len(WHOLE_STREAM))]


def test_pages_of_several_blocks_and_sections() -> None:
    frame, recorder = parse(WHOLE_STREAM)
    assert frame == FRAME
    assert recorder.blocks == BLOCKS
    assert recorder.pages == PAGES
    assert recorder.order == [(0, 0), (0, 3), (1, 1), (1, 0), (1, 1), (0, 0), (2, 0)]


def test_the_same_block_goes_beyond_the_end_of_a_section() -> None:
    _, recorder = parse(
        stream(section(PART, page(1, A, b"vga")), section(PART), section(END, page(0, B)))
    )
    assert recorder.pages == {(1, 1): A, (1, 0): B}


def test_a_stream_without_configuration_pages_or_tail() -> None:
    frame, recorder = parse(stream(section(END), head=MARK, tail=b""))
    assert frame == FRAME._replace(head=MARK, tail=b"")
    assert recorder.pages == {}


def test_what_is_written_is_read() -> None:
    target = io.BytesIO()
    writer = StreamWriter(target, FRAME)
    writer.begin()
    writer.pages(0, 1, memoryview(A + B))
    writer.pages(0, 0, memoryview(C))
    writer.pages(2, 0, memoryview(A))
    writer.pages(1, 1, memoryview(B))
    writer.end()
    frame, recorder = parse(target.getvalue())
    assert frame == FRAME
    assert recorder.order == [(0, 1), (0, 2), (0, 0), (2, 0), (1, 1)]
    assert recorder.pages == {(0, 1): A, (0, 2): B, (0, 0): C, (2, 0): A, (1, 1): B}


def test_what_is_written_is_what_qemu_would_send() -> None:
    target = io.BytesIO()
    writer = StreamWriter(target, FRAME)
    writer.begin()
    writer.pages(0, 2, memoryview(A + B))
    writer.pages(1, 0, memoryview(C))
    writer.end()
    pages = section(PART, page(2, A, b"pc.ram"), page(3, B), page(0, C, b"vga"))
    assert target.getvalue() == stream(pages, section(END))


@given(
    st.lists(
        st.sampled_from([(index, n) for index, b in enumerate(BLOCKS) for n in range(b.size >> 12)])
    )
)
def test_any_order_of_pages_is_read_as_it_was_written(order: list[tuple[int, int]]) -> None:
    target = io.BytesIO()
    writer = StreamWriter(target, FRAME)
    writer.begin()
    contents = {}
    for count, (block, number) in enumerate(order):
        contents[block, number] = bytes([count & 0xFF, count >> 8]) * (PAGE // 2)
        writer.pages(block, number, memoryview(contents[block, number]))
    writer.end()
    frame, recorder = parse(target.getvalue())
    assert (frame, recorder.order, recorder.pages) == (FRAME, order, contents)


@pytest.mark.parametrize("flags", [0, 0x01, 0x40, 0x80, 0x100, ZERO | WHOLE, EOS | WHOLE, CONTINUE])
def test_flags_that_are_unknown(flags: int) -> None:
    odd = word(1 << 12 | flags) + text(b"pc.ram") + A
    refuse(stream(section(END, odd)), "an unknown kind")


@pytest.mark.parametrize(
    "odd",
    [
        page(4, A, b"pc.ram"),
        page((1 << 52) - 1, A, b"pc.ram"),
        zeros(2, b"vga"),
        page(0, A, b"nothing"),
        page(0, A, b""),
        page(0, A),  # the same as none
        zeros(0),
    ],
)
def test_pages_that_are_nowhere(odd: bytes) -> None:
    refuse(stream(section(END, odd)), "outside all blocks")


def test_a_page_is_filled_with_zeros_only() -> None:
    refuse(stream(section(END, zeros(0, b"vga", fill=b"\1"))), "something other than zeros")


SWITCHOVER_START = b"\x08\0\x0b\0\0"


def test_qemu_may_say_when_the_guest_has_stopped() -> None:
    """As it does since 10.0; it changes nothing, and is not kept."""
    parts = (section(PART, page(1, A, b"pc.ram")), section(END, page(2, B, b"pc.ram")))
    frame, pages = parse(stream(*parts))
    with_it, same_pages = parse(stream(parts[0], SWITCHOVER_START, parts[1]))
    assert (with_it, vars(same_pages)) == (frame, vars(pages))


@pytest.mark.parametrize("odd", [b"\x08\0\x07\0\0", b"\x08\0\x0b\0\1x", b"\x08\0"])
def test_it_says_nothing_else(odd: bytes) -> None:
    refuse(stream(odd, section(END)), "something else comes")


def page_bits(bits: int, name: bytes = b"configuration/target-page-bits") -> bytes:
    """Return the subsection of a target whose pages may have several sizes."""
    return b"\x05" + bytes([len(name)]) + name + struct.pack(">II", 1, bits)


def test_how_large_pages_are_belongs_to_the_head() -> None:
    head = HEAD + page_bits(12)
    frame, _ = parse(head + setup() + section(END) + TAIL)
    assert frame.head == head
    target = io.BytesIO()
    writer = StreamWriter(target, frame)
    writer.begin()
    writer.end()
    assert parse(target.getvalue())[0] == frame


def test_a_machine_type_is_named_once() -> None:
    """Where it is missing it comes first; page sizes, where the target has several, follow it."""
    named = with_machine_type(MARK + TAIL, "pc-q3", has_page_size=False)
    assert named == HEAD + TAIL
    assert with_machine_type(named, "other", has_page_size=True) == named
    virt = with_machine_type(MARK, "virt-7.2", has_page_size=True)
    assert virt == MARK + b"\x07\0\0\0\x08virt-7.2" + page_bits(12)
    assert parse(virt + setup() + section(END) + TAIL)[0].head == virt


WRONG_BEGINNINGS = {
    "old version": (b"QEVM\0\0\0\x02" + setup(), "magic number"),
    "other mark": (b"QFI\xfb\0\0\0\x03" + setup(), "magic number"),
    "long machine name": (
        MARK + b"\x07\0\0\x01\x01" + bytes(257) + setup(),
        "name of its machine is too long",
    ),
    "endless machine name": (
        MARK + b"\x07\xff\xff\xff\xff" + setup(),
        "name of its machine is too long",
    ),
    "subsection": (HEAD + b"\x05" + setup(), "configuration"),
    "pages of another size": (HEAD + page_bits(16) + setup(), "configuration"),
    "pages of a huge size": (HEAD + page_bits(0xFFFFFFFF) + setup(), "configuration"),
    "other subsection": (
        HEAD + page_bits(12, b"configuration/capabilities") + setup(),
        "configuration",
    ),
    "other device": (HEAD + setup().replace(b"\x03ram", b"\x03rom"), "does not begin with memory"),
    "longer device": (
        HEAD + setup().replace(b"\x03ram", b"\x04tram"),
        "does not begin with memory",
    ),
    "total too small": (HEAD + setup(total=PAGE), "do not add up"),
    "total exceeded": (HEAD + setup([Block(b"a", 2 * PAGE)], total=PAGE), "do not add up"),
    "total too large": (HEAD + setup(total=9 * PAGE), "a block of|ends prematurely"),
    "total with flags": (HEAD + setup(total=7 * PAGE | 0x80), "how much memory"),
    "part of a page": (HEAD + setup([Block(b"a", PAGE + 1)], total=PAGE), "4097 bytes"),
    "empty block": (HEAD + setup([Block(b"a", 0)], total=PAGE), "0 bytes"),
    "huge block": (HEAD + setup([Block(b"a", 1 << 45)]), "bytes"),
    "many blocks": (HEAD + setup([Block(b"%d" % n, PAGE) for n in range(65)]), "do not add up"),
    "other footer": (HEAD + setup()[:-5] + footer(SECTION + 1), "should"),
    "no footer": (HEAD + setup()[:-5] + b"\0" * 5, "should"),
}


@pytest.mark.parametrize("name", WRONG_BEGINNINGS)
def test_beginnings_that_are_wrong(name: str) -> None:
    begin, reason = WRONG_BEGINNINGS[name]
    refuse(begin + section(END) + TAIL, reason)


@pytest.mark.parametrize("kind", [0, START, 4, 5, 0x7E, 0xFF])
def test_sections_that_do_not_belong_there(kind: int) -> None:
    refuse(stream(section(kind, page(0, A, b"pc.ram")), section(END)), "end of the memory")


def test_a_section_of_another_device() -> None:
    other = struct.pack(">BI", PART, SECTION + 1) + word(EOS) + footer(SECTION + 1)
    refuse(stream(other, section(END)), "end of the memory")


def test_a_tail_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu_stream, "_LARGEST_TAIL", len(TAIL) + 1)
    assert parse(WHOLE_STREAM)[0].tail == TAIL
    monkeypatch.setattr(qemu_stream, "_LARGEST_TAIL", len(TAIL))
    refuse(WHOLE_STREAM, "too large")


def test_it_may_end_nowhere_before_the_tail() -> None:
    end = len(WHOLE_STREAM) - len(TAIL)
    for length in structure():
        if length < end:
            refuse(WHOLE_STREAM[:length], "ends prematurely|something other than zeros")
        else:
            assert parse(WHOLE_STREAM[:length])[0].tail == WHOLE_STREAM[end:length]


@given(st.integers(0, len(WHOLE_STREAM) - len(TAIL) - 1))
def test_it_may_not_end_within_a_page_either(length: int) -> None:
    refuse(WHOLE_STREAM[:length], "ends prematurely|something other than zeros")


def check(data: bytes) -> None:
    """Fail the test on anything but StreamError, and on reading more than is allowed."""
    try:
        frame, recorder = parse(data)
    except StreamError:
        return
    assert recorder.blocks == frame.blocks


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x08, 0x10, 0x20, 0x80, 0xFF])
def test_any_byte_of_the_structure_changed(mask: int) -> None:
    for offset in structure():
        check(
            WHOLE_STREAM[:offset]
            + bytes([WHOLE_STREAM[offset] ^ mask])
            + WHOLE_STREAM[offset + 1 :]
        )


@given(st.integers(0, len(WHOLE_STREAM) - 1), st.integers(0, 255))
def test_any_byte_changed(offset: int, value: int) -> None:
    check(WHOLE_STREAM[:offset] + bytes([value]) + WHOLE_STREAM[offset + 1 :])


@given(st.sampled_from([0, len(HEAD), len(HEAD) + 20, len(HEAD + setup())]), st.binary())
def test_random_bytes_after_a_good_beginning(length: int, rest: bytes) -> None:
    check(WHOLE_STREAM[:length] + rest)


PARTS = [
    b"\0", b"\xff", word(EOS), word(SIZES), footer(), text(b"ram"), text(b"pc.ram"), setup(), HEAD,
    section(PART), section(END), page(1, A), page(1, A, b"vga"), zeros(0), zeros(3, b"pc.ram"),
    struct.pack(">BI", PART, SECTION), struct.pack(">BI", END, SECTION),
]  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PARTS)))
def test_good_parts_in_any_order(parts: list[bytes]) -> None:
    check(HEAD + setup() + b"".join(parts))
    check(HEAD + b"".join(parts))


def test_a_stream_comes_through_a_pipe_in_small_pieces() -> None:
    local, remote = os.pipe()
    with os.fdopen(local, "rb", buffering=100) as source, os.fdopen(remote, "wb") as target:
        for at in range(0, len(WHOLE_STREAM), 1000):  # less than a pipe holds
            target.write(WHOLE_STREAM[at : at + 1000])
            target.flush()
        target.close()
        recorder = Recorder()
        assert read_stream(source, recorder) == FRAME
    assert recorder.pages == PAGES
