"""Files by descriptor: how they are opened, read and written at offsets, copied."""

import os
import stat
import threading
from pathlib import Path

import pytest

from boincvm.host import files


@pytest.mark.parametrize(
    ("mode", "before", "after"),
    [
        ("r+", b"content", b"XYntent"),
        ("c+", b"content", b"XYntent"),
        ("c+", None, b"XY"),
        ("w", b"content", b"XY"),
        ("w+", b"content", b"XY"),
        ("x", None, b"XY"),
        ("x+", None, b"XY"),
        ("a", b"content", b"contentXY"),
        ("a", None, b"XY"),
    ],
)
def test_modes_are_those_of_open(
    tmp_path: Path, mode: str, before: bytes | None, after: bytes
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    descriptor = files.open_descriptor(path, mode)
    try:
        assert not os.get_inheritable(descriptor)
        os.write(descriptor, b"XY")
    finally:
        os.close(descriptor)
    assert path.read_bytes() == after


@pytest.mark.parametrize(
    ("mode", "exists", "error"),
    [
        ("r", False, FileNotFoundError),
        ("r+", False, FileNotFoundError),
        ("x", True, FileExistsError),
        ("x+", True, FileExistsError),
    ],
)
def test_what_modes_refuse(tmp_path: Path, mode: str, exists: bool, error: type[OSError]) -> None:
    path = tmp_path / "file"
    if exists:
        path.touch()
    with pytest.raises(error):
        files.open_descriptor(path, mode)


def test_links_are_followed_only_if_wanted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"there")
    link = tmp_path / "link"
    link.symlink_to("file")
    descriptor = files.open_descriptor(link)
    os.close(descriptor)
    for mode in ("r", "r+", "w", "a", "c+"):
        with pytest.raises(OSError, match="symbolic"):
            files.open_descriptor(link, mode, follow_links=False)
    assert (tmp_path / "file").read_bytes() == b"there"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    descriptor = files.open_descriptor(pipe, wait=False)
    try:
        assert os.read(descriptor, 1) == b""
    finally:
        os.close(descriptor)
    with pytest.raises(OSError, match="not a regular file"):
        files.open_regular(pipe)


def test_a_path_starts_from_its_parent(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        descriptor = files.open_descriptor("file", "x", permissions=0o640, parent=directory)
    finally:
        os.close(directory)
    os.close(descriptor)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) & 0o600 == 0o600


def test_places_leave_the_position_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    descriptor = files.open_descriptor(tmp_path / "file", "r+")
    try:
        os.lseek(descriptor, 3, os.SEEK_SET)
        assert files.write_at(descriptor, b"XX", 6) == 2
        assert files.read_at(descriptor, 4, 5) == b"5XX8"
        assert files.read_at(descriptor, 4, 10) == b""
        assert os.read(descriptor, 2) == b"34"
    finally:
        os.close(descriptor)


def test_a_range_is_copied(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(bytes(range(200)))
    source = files.open_descriptor(tmp_path / "from")
    target = files.open_descriptor(tmp_path / "to", "x+")
    try:
        at = 0
        while done := files.copy_range(source, 100 + at, target, 10 + at, 1000):
            at += done
        assert at == 100
        assert files.read_at(target, 1000, 0) == bytes(10) + bytes(range(100, 200))
    finally:
        os.close(source)
        os.close(target)


def test_a_nameless_file_leaves_nothing(tmp_path: Path) -> None:
    descriptor = files.open_nameless(tmp_path)
    try:
        os.write(descriptor, b"content")
        assert files.read_at(descriptor, 20, 0) == b"content"
        assert list(tmp_path.iterdir()) == []
    finally:
        os.close(descriptor)


def test_what_a_disk_has(tmp_path: Path) -> None:
    assert files.free_space(tmp_path) > 0
    assert files.has_free_entries(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(b"\1" * 8192)
    assert files.sync_file(path).st_size == 8192
    files.sync_directory(tmp_path)
    assert files.allocated_size(path.stat()) >= 8192
    with path.open("r+b") as file:
        file.truncate(1 << 30)
    assert files.allocated_size(path.stat()) < 1 << 29


def test_a_new_file_takes_the_place_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"other's")
    (tmp_path / "link").symlink_to("file")
    with files.create_new(tmp_path / "link") as file:
        file.write(b"ours")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"other's"


def test_threads_read_their_own_places(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"".join(bytes([number]) * 512 for number in range(64)))
    descriptor = files.open_descriptor(tmp_path / "file")
    wrong: list[int] = []

    def poll(number: int) -> None:
        read = [files.read_at(descriptor, 512, number * 512) for _ in range(200)]
        wrong.extend({number for one in read if one != bytes([number]) * 512})

    threads = [threading.Thread(target=poll, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    os.close(descriptor)
    assert wrong == []
