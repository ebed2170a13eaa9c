"""Trees of files on Windows: no name is read in another way.

That no link is followed cannot be shown under wine, which makes none.
"""

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.host import filetree
from boincvm.host.files import open_descriptor
from boincvm.tree_entries import Entry, UnsafePathError

assert sys.platform == "win32"

ODD_NAMES = [
    b"a:stream", b"NUL", b"com1.txt", b"dot.", b"blank ", b"..\\up", b"C:\\x", b"\\\\host\\share",
    b"what?", b"PROGRA~1", b"\xff",
]  # fmt: skip
TIME = 1_600_000_000_123_456_700


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    descriptor = filetree.open_directory(tmp_path)
    yield descriptor
    os.close(descriptor)


def test_a_tree_is_written_and_walked(root: int, tmp_path: Path) -> None:
    writer = filetree.TreeWriter(root, "Bäume".encode(), maximum_bytes=100)
    writer.add(Entry("directory", b"", modified=TIME))
    writer.add(Entry("directory", b"below"))
    writer.add(Entry("file", b"below/file", 0o644, 9, modified=TIME))
    writer.write(4, b"\r\nab\n")
    writer.finish()
    assert (tmp_path / "Bäume/below/file").read_bytes() == b"\0\0\0\0\r\nab\n"
    found = []
    for entry, descriptor in filetree.walk(root, "Bäume".encode()):
        content = os.read(descriptor, 100) if descriptor >= 0 else b""
        found.append((entry.kind, entry.path, entry.size, content))
    assert found == [
        ("directory", b"", 0, b""),
        ("directory", b"below", 0, b""),
        ("file", b"below/file", 9, b"\0\0\0\0\r\nab\n"),
    ]
    assert (tmp_path / "Bäume/below/file").stat().st_mtime_ns == TIME
    filetree.remove_tree("Bäume".encode(), root)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_windows_reads_in_another_way(root: int, tmp_path: Path, name: bytes) -> None:
    writer = filetree.TreeWriter(root, b"tree", maximum_bytes=100)
    writer.add(Entry("directory", b""))
    with pytest.raises(UnsafePathError):
        writer.add(Entry("file", name, 0o644, 1))
    with pytest.raises(UnsafePathError):
        writer.add(Entry("directory", name))
    writer.close()
    for parts in ([name, b"x"], [b"tree", name, b"x"]):
        with pytest.raises(UnsafePathError):
            filetree.open_parent(root, parts, create=True)
    with pytest.raises(UnsafePathError):
        open_descriptor(name, "x", parent=root)
    assert list(tmp_path.rglob("*")) == [tmp_path / "tree"]


def test_a_file_that_a_guest_says_is_huge(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits until its zeros are written: Microsoft's C library, unlike wine's, does that."""

    def write_zeros(_descriptor: int, _size: int) -> None:
        raise AssertionError("it writes all the zeros")

    monkeypatch.setattr(os, "ftruncate", write_zeros)
    writer = filetree.TreeWriter(root, b"tree", maximum_bytes=1 << 40)
    writer.add(Entry("file", b"", 0o644, 1 << 36))
    writer.write((1 << 36) - 1, b"x")
    assert (tmp_path / "tree").stat().st_size == 1 << 36
    writer.empty_file()
    writer.finish()
    assert (tmp_path / "tree").stat().st_size == 1 << 36
    with (tmp_path / "tree").open("rb") as file:
        file.seek(-1, os.SEEK_END)
        assert file.read() == b"\0"


def test_what_is_in_the_way_is_reported_as_on_linux(root: int, tmp_path: Path) -> None:
    """`--replace` goes by that."""
    for name in ("full", "empty", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "full/file").write_bytes(b"old")
    (tmp_path / "file").write_bytes(b"new")
    for source, target, number in (
        (b"new", b"full", errno.ENOTEMPTY),
        (b"file", b"full", errno.EISDIR),
        (b"file", b"empty", errno.EISDIR),
        (b"new", b"file", errno.ENOTDIR),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
            filetree.rename(source, target, root)
        assert caught.value.errno == number
    filetree.rename(b"new", b"empty", root)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


def test_names_that_differ_in_case_only(root: int) -> None:
    writer = filetree.TreeWriter(root, b"tree", maximum_bytes=100)
    writer.add(Entry("directory", b""))
    writer.add(Entry("file", b"Name", 0o644, 1))
    with pytest.raises(FileExistsError):
        writer.add(Entry("file", b"nAME", 0o644, 1))
    writer.close()


def test_an_entry_takes_another_s_place(root: int, tmp_path: Path) -> None:
    for name in (b"old", b"new"):
        os.close(open_descriptor(name, "x", parent=root))
    filetree.rename(b"new", b"old", root)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    filetree.unlink(b"old", root)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        filetree.unlink(b"old", root)
