"""A machine's memory on disk: changes are written, and former content can be restored."""

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm.hypervisor.qemu.memory_file import (
    MARK,
    MemoryFileError,
    MemoryImage,
    MemoryWriter,
    Summary,
)
from boincvm.hypervisor.qemu.stream import PAGE, Block, Frame, read_stream

BLOCKS = (Block(b"pc.ram", 300 * PAGE), Block(b"vga", 3 * PAGE))
FRAME = Frame(b"QEVM\0\0\0\x03", 2, 0, 4, BLOCKS, b"\x04 the devices' state")
TRAILER = struct.Struct("<8sQI32s")
ZERO = None
Location = tuple[int, int]
Pages = Mapping[Location, bytes | None]


def content(value: int) -> bytes:
    """Return a page that differs from that of any other value."""
    return struct.pack("<Q", value + 1) * (PAGE // 8)


def save(
    directory: Path, name: str, base: str | None, pages: Pages, frame: Frame = FRAME
) -> Summary:
    """Write one generation, from a stream with these pages."""
    writer = MemoryWriter(directory, name, base)
    try:
        writer.begin(frame.blocks)
        for (block, number), data in pages.items():
            if data is ZERO:
                writer.zero(block, number)
            else:
                writer.page(block, number, data)
        return writer.finish(frame)
    finally:
        writer.close()


class Memory:
    """Receives a stream's pages, each of which may come only once."""

    def __init__(self) -> None:
        self.pages: dict[Location, bytes] = {}

    def begin(self, blocks: tuple[Block, ...]) -> None:
        assert blocks == BLOCKS

    def page(self, block: int, number: int, data: bytes) -> None:
        assert (block, number) not in self.pages
        self.pages[block, number] = data

    def zero(self, block: int, number: int) -> None:
        raise AssertionError("nobody needs to be told of zeros")


def restore(directory: Path, name: str, frame: Frame = FRAME) -> dict[Location, bytes]:
    """Return what QEMU would get: all pages but those of zeros."""
    with os.fdopen(os.memfd_create("stream"), "w+b") as file:
        MemoryImage.read(directory, name).write_stream(file.fileno())
        file.seek(0)
        memory = Memory()
        assert read_stream(file, memory) == frame
    return memory.pages


def overhead(path: Path) -> int:
    """Return the bytes of the file that are not pages."""
    begin = TRAILER.unpack(path.read_bytes()[-TRAILER.size :])[1]
    return path.stat().st_size - int(begin)


def written(path: Path) -> float:
    """Return the pages in the file."""
    return (path.stat().st_size - overhead(path)) / PAGE


def test_one_file(tmp_path: Path) -> None:
    pages = {(0, 0): content(1), (0, 1): content(2), (0, 299): content(3), (1, 2): content(1)}
    summary = save(tmp_path, "memory-1", None, {**pages, (0, 5): ZERO, (1, 0): ZERO})
    data = (tmp_path / "memory-1").read_bytes()
    digest = hashlib.blake2b(data, digest_size=32).hexdigest()
    assert summary == Summary(("memory-1",), 4 * PAGE, len(data), digest)
    assert restore(tmp_path, "memory-1") == pages
    assert os.listdir(tmp_path) == ["memory-1"]


def test_a_machine_of_zeros_costs_next_to_nothing(tmp_path: Path) -> None:
    summary = save(tmp_path, "memory-1", None, {(0, n): ZERO for n in range(300)})
    assert summary.live == 0
    assert summary.written < 1000
    assert restore(tmp_path, "memory-1") == {}


def test_long_runs_of_pages_that_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: Pages = {(0, number): content(number) for number in range(300)}
    save(tmp_path, "memory-1", None, pages)
    read, lengths = os.pread, list[int]()

    def watched(descriptor: int, length: int, offset: int) -> bytes:
        lengths.append(length)
        return read(descriptor, length, offset)

    monkeypatch.setattr("boincvm.hypervisor.qemu.memory_file.read_at", watched)
    assert restore(tmp_path, "memory-1") == pages
    assert lengths == [256 * PAGE, 44 * PAGE]  # few calls, and not all of the memory at once


def test_pages_that_came_in_another_order(tmp_path: Path) -> None:
    pages: Pages = {(0, number): content(number) for number in [*range(9, 0, -1), *range(20, 30)]}
    save(tmp_path, "memory-1", None, pages)
    assert restore(tmp_path, "memory-1") == pages


def test_a_page_that_comes_again_counts_as_it_came_last(tmp_path: Path) -> None:
    writer = MemoryWriter(tmp_path, "memory-1", None)
    writer.begin(BLOCKS)
    for number, data in [(0, content(1)), (1, content(1)), (0, content(2)), (2, content(3))]:
        writer.page(0, number, data)
    writer.zero(0, 1)
    writer.zero(0, 2)
    writer.page(0, 2, content(3))
    writer.finish(FRAME)
    writer.close()
    assert restore(tmp_path, "memory-1") == {(0, 0): content(2), (0, 2): content(3)}


def test_only_pages_that_changed_are_written_again(tmp_path: Path) -> None:
    first = {(0, n): content(n) for n in range(100)} | {(1, 1): content(500)}
    changes = {(0, 3): content(700), (0, 40): content(701), (0, 200): content(702)}
    save(tmp_path, "memory-1", None, first)
    summary = save(tmp_path, "memory-2", "memory-1", {**first, **changes})
    assert summary.chain == ("memory-1", "memory-2")
    assert summary.live == 102 * PAGE
    assert written(tmp_path / "memory-2") == 3
    assert restore(tmp_path, "memory-2") == {**first, **changes}
    assert restore(tmp_path, "memory-1") == first  # which is as good as it was


def test_zeroed_pages_cost_nothing_and_come_back(tmp_path: Path) -> None:
    first = {(0, 0): content(1), (0, 1): content(2), (1, 0): content(3)}
    save(tmp_path, "memory-1", None, first)
    summary = save(tmp_path, "memory-2", "memory-1", {(0, 1): ZERO, (1, 0): ZERO})
    assert summary.live == PAGE
    assert written(tmp_path / "memory-2") == 0
    assert restore(tmp_path, "memory-2") == {(0, 0): content(1)}
    # With the content it had before the zeros, whose digest the table may have still.
    save(tmp_path, "memory-3", "memory-2", {(0, 1): content(2)})
    assert restore(tmp_path, "memory-3") == {(0, 0): content(1), (0, 1): content(2)}


def test_a_page_goes_back_to_an_older_content(tmp_path: Path) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1), (0, 1): content(9)})
    save(tmp_path, "memory-2", "memory-1", {(0, 0): content(2)})
    save(tmp_path, "memory-3", "memory-2", {(0, 0): content(1)})
    assert restore(tmp_path, "memory-2") == {(0, 0): content(2), (0, 1): content(9)}
    assert restore(tmp_path, "memory-3") == {(0, 0): content(1), (0, 1): content(9)}


def test_files_without_a_live_page_leave_the_chain(tmp_path: Path) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1), (0, 1): content(2)})
    save(tmp_path, "memory-2", "memory-1", {(0, 0): content(3)})
    third = save(tmp_path, "memory-3", "memory-2", {(0, 0): content(4), (0, 2): content(5)})
    assert third.chain == ("memory-1", "memory-3")
    (tmp_path / "memory-2").unlink()
    pages = {(0, 0): content(4), (0, 1): content(2), (0, 2): content(5)}
    assert restore(tmp_path, "memory-3") == pages
    fourth = save(tmp_path, "memory-4", "memory-3", {(0, 1): ZERO, (1, 0): content(6)})
    assert fourth.chain == ("memory-3", "memory-4")
    (tmp_path / "memory-1").unlink()
    assert restore(tmp_path, "memory-4") == {
        (0, 0): content(4), (0, 2): content(5), (1, 0): content(6)
    }  # fmt: skip


def test_nothing_changed_at_all(tmp_path: Path) -> None:
    pages: Pages = {(0, 0): content(1)}
    save(tmp_path, "memory-1", None, pages)
    for number in range(2, 6):
        summary = save(tmp_path, f"memory-{number}", f"memory-{number - 1}", pages)
        assert summary.chain == ("memory-1", f"memory-{number}")
    assert restore(tmp_path, "memory-5") == pages


def test_there_is_an_end_to_the_files_of_a_chain(tmp_path: Path) -> None:
    pages = {(0, n): content(n) for n in range(64)}
    base = None
    for number in range(64):
        summary = save(tmp_path, f"memory-{number}", base, {(0, number): content(number)})
        base = f"memory-{number}"
    assert len(summary.chain) == 64
    assert restore(tmp_path, "memory-63") == pages
    with pytest.raises(MemoryFileError, match="too many files"):
        save(tmp_path, "memory-64", base, {(0, 64): content(64)})


@pytest.mark.parametrize(
    "blocks",
    [BLOCKS[:1], BLOCKS[::-1], (Block(b"pc.ram", 299 * PAGE), BLOCKS[1]),
     (Block(b"ram", 300 * PAGE), BLOCKS[1])],
)  # fmt: skip
def test_the_base_of_another_machine(tmp_path: Path, blocks: tuple[Block, ...]) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1)})
    with pytest.raises(MemoryFileError, match="another machine"):
        save(tmp_path, "memory-2", "memory-1", {}, FRAME._replace(blocks=blocks))


def test_no_file_is_written_over(tmp_path: Path) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1)})
    with pytest.raises(FileExistsError):
        MemoryWriter(tmp_path, "memory-1", None)
    assert restore(tmp_path, "memory-1") == {(0, 0): content(1)}


def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        MemoryWriter(tmp_path, "memory-2", "memory-1")
    assert os.listdir(tmp_path) == []


def damaged(directory: Path, data: bytes) -> None:
    """Check that reading a file with this content is refused, for restoring and as a base."""
    path = directory / "memory-1"
    path.write_bytes(data)
    with pytest.raises(MemoryFileError, match="memory-1 is damaged"):
        MemoryImage.read(directory, "memory-1")


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_byte_of_the_end_counts(tmp_path: Path, mask: int) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1), (0, 7): content(2), (1, 1): content(3)})
    data = (tmp_path / "memory-1").read_bytes()
    end = overhead(tmp_path / "memory-1")
    assert TRAILER.size + len(FRAME.tail) < end < 2000
    for offset in range(len(data) - end, len(data)):
        damaged(tmp_path, data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :])


def test_a_file_that_is_cut_or_longer(tmp_path: Path) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1)})
    data = (tmp_path / "memory-1").read_bytes()
    for length in [*range(0, len(data), 7), len(data) - 1]:
        damaged(tmp_path, data[:length])
    damaged(tmp_path, data + b"\0")


def test_a_damaged_base_is_no_base(tmp_path: Path) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1)})
    os.truncate(tmp_path / "memory-1", 100)
    with pytest.raises(MemoryFileError):
        MemoryWriter(tmp_path, "memory-2", "memory-1")
    assert os.listdir(tmp_path) == ["memory-1"]


def test_pages_that_have_gone(tmp_path: Path) -> None:
    save(tmp_path, "memory-1", None, {(0, n): content(n) for n in range(9)})
    save(tmp_path, "memory-2", "memory-1", {(0, 3): content(100)})
    image = MemoryImage.read(tmp_path, "memory-2")
    os.truncate(tmp_path / "memory-1", 8 * PAGE + 100)
    with tempfile.TemporaryFile() as file, pytest.raises(MemoryFileError, match="shorter"):
        image.write_stream(file.fileno())


def rewrite(directory: Path, **changes: object) -> None:
    """Write memory-1 with other metadata, whose digest is right."""
    path = directory / "memory-1"
    data = path.read_bytes()
    mark, begin, length, _ = TRAILER.unpack(data[-TRAILER.size :])
    meta_at = len(data) - TRAILER.size - length
    meta = json.dumps({**json.loads(data[meta_at : meta_at + length]), **changes}).encode()
    end = data[begin:meta_at] + meta
    digest = hashlib.blake2b(end, digest_size=32).digest()
    path.write_bytes(data[:begin] + end + TRAILER.pack(mark, begin, len(meta), digest))


def test_the_same_meta_written_anew_is_good(tmp_path: Path) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1)})
    rewrite(tmp_path)
    assert restore(tmp_path, "memory-1") == {(0, 0): content(1)}


@pytest.mark.parametrize(
    "chain",
    [[], ["../x", "memory-1"], ["/etc/x", "memory-1"], [".hidden", "memory-1"], ["..", "memory-1"],
     ["a\0b", "memory-1"],
     ["", "memory-1"], ["memory-2"], ["memory-1", "memory-2"], [7, "memory-1"], "memory-1", None,
     ["memory-0"] * 64 + ["memory-1"]],
)  # fmt: skip
def test_chains_that_are_wrong(tmp_path: Path, chain: object) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1)})
    rewrite(tmp_path, chain=chain)
    with pytest.raises(MemoryFileError, match="memory-1 is damaged"):
        MemoryImage.read(tmp_path, "memory-1")


def test_a_page_in_a_file_that_the_chain_has_not(tmp_path: Path) -> None:
    save(tmp_path, "memory-0", None, {(0, 0): content(1)})
    save(tmp_path, "memory-1", "memory-0", {(0, 1): content(2)})
    rewrite(tmp_path, chain=["memory-1"])
    with pytest.raises(MemoryFileError, match="a page is in none of the files"):
        MemoryImage.read(tmp_path, "memory-1")


@pytest.mark.parametrize(
    "changes",
    [{"blocks": [[b"pc.ram".hex(), 300 * PAGE]]}, {"blocks": [["zz", PAGE]]}, {"blocks": 3},
     {"blocks": [[b"pc.ram".hex(), -4 * PAGE]]}, {"blocks": [[b"pc.ram".hex(), 1]]},
     {"tail": 0}, {"tail": "x"}, {"table": None}, {"table": 1 << 30},
     {"tail": len(FRAME.tail) + 1}, {"head": 1}, {"ram": [1, 2]}, {"ram": None}],
    ids=str,
)  # fmt: skip
def test_meta_that_makes_no_sense(tmp_path: Path, changes: dict[str, object]) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1)})
    rewrite(tmp_path, **changes)
    with pytest.raises(MemoryFileError, match="memory-1 is damaged"):
        MemoryImage.read(tmp_path, "memory-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": [[b"pc.ram".hex(), 1 << 50]]},
        {"blocks": [[b"pc.ram".hex(), (1 << 40) + PAGE]]},
        {"blocks": [[b"pc.ram".hex(), 1 << 30]]},
        {"tail": 1 << 40},
        {"table": 1 << 40},
        {"tail": float("inf")},
    ],
    ids=str,
)
def test_no_more_memory_than_the_machine_has(tmp_path: Path, changes: dict[str, object]) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1)})
    rewrite(tmp_path, **changes)
    with pytest.raises(MemoryFileError, match="memory-1 is damaged"):
        MemoryImage.read(tmp_path, "memory-1", 300 * PAGE)


def test_an_end_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    """Neither the devices' state, nor a table that consists of holes."""
    save(tmp_path, "memory-1", None, {(0, 0): content(1)})
    data = (tmp_path / "memory-1").read_bytes()
    length = TRAILER.unpack(data[-TRAILER.size :])[2]
    meta = data[-TRAILER.size - length : -TRAILER.size]
    for changes in ({"tail": 4 << 30}, {"table": 4 << 30}):
        new = json.dumps({**json.loads(meta), **changes}).encode()
        with (tmp_path / "memory-2").open("wb") as file:
            file.truncate(5 << 30)
            file.seek(0, os.SEEK_END)
            file.write(new + TRAILER.pack(MARK, 0, len(new), bytes(32)))
        with pytest.raises(MemoryFileError, match=r"contains too much|table is too large"):
            MemoryImage.read(tmp_path, "memory-2")


def test_a_table_that_is_none(tmp_path: Path) -> None:
    save(tmp_path, "memory-1", None, {(0, 0): content(1)})
    size = overhead(tmp_path / "memory-1") - TRAILER.size
    length = TRAILER.unpack((tmp_path / "memory-1").read_bytes()[-TRAILER.size :])[2]
    rewrite(tmp_path, tail=0, table=size - length)  # which begins with the devices' state then
    with pytest.raises(MemoryFileError, match="memory-1 is damaged"):
        MemoryImage.read(tmp_path, "memory-1")


def test_another_mark_is_another_version(tmp_path: Path) -> None:
    save(tmp_path, "memory-1", None, {})
    data = (tmp_path / "memory-1").read_bytes()
    damaged(tmp_path, data.replace(MARK, b"BVMMEM2\n"))


PLACES = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 298), (0, 299), (1, 0), (1, 2)]
GENERATION = st.lists(st.tuples(st.sampled_from(PLACES), st.none() | st.integers(0, 3)), max_size=9)


@settings(max_examples=60, deadline=None)
@given(st.lists(GENERATION, min_size=1, max_size=6))
def test_any_generations_come_back(
    generations: Sequence[Sequence[tuple[Location, int | None]]],
) -> None:
    with tempfile.TemporaryDirectory() as path:
        directory, base, state = Path(path), None, dict[Location, bytes]()
        for count, writes in enumerate(generations):
            name = f"memory-{count}"
            writer = MemoryWriter(directory, name, base)
            writer.begin(BLOCKS)
            for (block, number), value in writes:
                if value is None:
                    writer.zero(block, number)
                    state.pop((block, number), None)
                else:
                    state[block, number] = content(value)
                    writer.page(block, number, content(value))
            summary = writer.finish(FRAME)
            writer.close()
            assert summary.live == len(state) * PAGE
            assert restore(directory, name) == state
            for path in directory.iterdir():  # nothing else is needed any more
                if path.name not in summary.chain:
                    path.unlink()
            base = name
