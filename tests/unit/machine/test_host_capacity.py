"""Whether there is room for a checkpoint, and how much disk space a directory takes."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from boincvm.machine.errors import NoRoomForCheckpointError
from boincvm.machine.host_capacity import RESERVE, check_checkpoint_room, disk_usage

BLOCK = 4096
MIB = 1 << 20


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    """Make a slot with 2 MiB in it, 1 MiB of them in the machine's directory."""
    slot = tmp_path / "slot"
    for directory in (slot, slot / "machine"):
        directory.mkdir()
        (directory / "file").write_bytes(os.urandom(MIB))
    return slot


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Set the free bytes of the disk."""
    free = [0]
    monkeypatch.setattr(
        "os.statvfs",
        lambda path: SimpleNamespace(f_bavail=free[0] // BLOCK, f_bfree=1 << 40, f_frsize=BLOCK),
    )
    return free


def check(slot: Path, needed: int, bound: float) -> None:
    check_checkpoint_room(slot / "machine", needed, slot, bound)


def test_there_is_room(slot: Path) -> None:
    check(slot, 1, 0)
    check(slot, 1, 1e15)
    check(slot, 0, 1e15)


def test_the_disk_of_the_machine_counts_and_some_of_it_is_kept_free(
    slot: Path, free: list[int]
) -> None:
    free[0] = RESERVE + 3 * MIB
    check(slot, 3 * MIB, 0)
    with pytest.raises(NoRoomForCheckpointError) as caught:
        check(slot, 3 * MIB + 1, 0)
    assert caught.value.message == ("a checkpoint needs up to 3.0 MiB of disk, and 3.0 MiB is free")
    assert "the previous one is kept" in caught.value.hint
    assert "free some space" in caught.value.hint


@pytest.mark.parametrize("left", [0, RESERVE // 2, RESERVE])
def test_the_disk_is_full(slot: Path, free: list[int], left: int) -> None:
    free[0] = left
    with pytest.raises(NoRoomForCheckpointError, match="up to 8 B of disk, and 0 B is free"):
        check(slot, 8, 0)


def test_more_than_any_disk_has(slot: Path) -> None:
    with pytest.raises(NoRoomForCheckpointError, match=r"up to 1048576\.0 TiB of disk"):
        check(slot, 1 << 60, 0)


def test_the_bound_of_the_project(slot: Path) -> None:
    used = disk_usage(slot)
    check(slot, 5 * MIB, used + 5 * MIB)
    with pytest.raises(NoRoomForCheckpointError) as caught:
        check(slot, 5 * MIB, used + 5 * MIB - 1.0)
    assert caught.value.message == (
        "a checkpoint needs up to 5.0 MiB, and the task has 2.0 MiB of the 7.0 MiB that it may"
        " use on disk"
    )
    assert "the previous one is kept" in caught.value.hint
    assert "rsc_disk_bound" in caught.value.hint


def test_the_bound_is_used_up_already(slot: Path) -> None:
    with pytest.raises(NoRoomForCheckpointError, match=r"has 2\.0 MiB of the 1\.0 MiB"):
        check(slot, 0, MIB)


def test_without_a_bound_the_slot_is_not_looked_at(
    slot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(directory: object) -> Iterator[object]:
        raise AssertionError(directory)

    monkeypatch.setattr("os.walk", refuse)
    check(slot, MIB, 0)


def test_the_machine_may_lie_beside_the_slot(slot: Path, tmp_path: Path, free: list[int]) -> None:
    free[0] = 1 << 40
    check_checkpoint_room(tmp_path, MIB, slot, disk_usage(slot) + MIB)


def test_a_disk_that_is_not_there(slot: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_checkpoint_room(tmp_path / "nothing", MIB, slot, 0)


def test_all_files_beneath_count(slot: Path) -> None:
    assert 2 * MIB <= disk_usage(slot) < 2.2 * MIB
    (slot / "machine" / "deeper").mkdir()
    (slot / "machine" / "deeper" / "file").write_bytes(os.urandom(MIB))
    assert 3 * MIB <= disk_usage(slot) < 3.3 * MIB


def test_holes_take_nothing(tmp_path: Path) -> None:
    with (tmp_path / "disk.qcow2").open("wb") as file:
        file.truncate(1 << 34)
        file.seek(1 << 33)
        file.write(os.urandom(MIB))
    assert MIB <= disk_usage(tmp_path) < 1.2 * MIB


def test_links_are_not_followed(slot: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "file").symlink_to(slot / "file")
    (links / "directory").symlink_to(slot)
    (links / "nothing").symlink_to("nowhere")
    (links / "itself").symlink_to(links)
    assert disk_usage(links) < MIB / 10


def test_files_that_vanish_meanwhile(slot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = disk_usage(slot)
    walk = os.walk

    def walk_late(directory: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for location, directories, names in walk(directory):
            yield location, directories, ["gone", *names, "gone too"]

    monkeypatch.setattr("os.walk", walk_late)
    assert disk_usage(slot) == before


def test_an_empty_directory_and_none(tmp_path: Path) -> None:
    assert disk_usage(tmp_path) == 0
    assert disk_usage(tmp_path / "nothing") == 0
