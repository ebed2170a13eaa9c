"""Files that are replaced by new ones, whole or not at all."""

import os
from pathlib import Path

import pytest

from boincvm.host.atomic_files import replacement, write_atomically


@pytest.mark.parametrize("is_unique", [False, True])
@pytest.mark.parametrize("is_synced", [False, True])
def test_it_takes_the_place_of_the_old_one(
    tmp_path: Path, is_unique: bool, is_synced: bool
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacement(path, is_unique=is_unique, is_synced=is_synced) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


def test_nothing_changes_where_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacement(path) as part:
        assert part.write_text("half") / 0
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_several_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with (
        replacement(path, is_unique=True) as one,
        replacement(path, is_unique=True) as other,
    ):
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode("ü".encode() * 127)
    write_atomically(path, "content")
    assert os.listdir(tmp_path) == [path.name]


def test_something_else_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "file", b"content")
    assert os.listdir(tmp_path) == ["file"]
