"""A machine's snapshots: their files, what a kill leaves, and hostile tables."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from boincvm.errors import HostError, UsageError
from boincvm.file_digest import digest_of
from boincvm.hypervisor.contract import Checkpoint, FileSeal
from boincvm.job.model import MachineShape
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.saved_machine import SavedMachine, manifest_path, next_number, write_saved
from boincvm.shim.machine_directory import MachineDirectory, Status
from boincvm.shim.snapshots import Snapshots, read_checkpoint
from support.anything import ANYTHING, HUGE

GOOD: dict[str, object] = {
    "name": "one",
    "number": 1,
    "description": "",
    "made": 1.5,
    "size": 7,
    "programs": [],
}


@pytest.fixture
def location(tmp_path: Path) -> MachineDirectory:
    made = MachineDirectory(tmp_path)
    made.disk.mkdir()
    made.write_status(Status())
    return made


def checkpoint(location: MachineDirectory, *shared: str) -> SavedMachine:
    """Write a checkpoint: its memory, its disk, and files that it shares with others."""
    number = next_number(location.disk)
    names = (f"memory-{number:06d}", f"disk-{number:06d}.qcow2")
    for name in names:
        (location.disk / name).write_bytes(name.encode())
    files = {name: FileSeal(*digest_of(location.disk / name)) for name in (*names, *shared)}
    made = Checkpoint(number, files, {})
    saved = SavedMachine(made, "qemu", "digest", MachineShape(), {}, (), None)
    write_saved(location.disk, saved)
    return saved


def take(location: MachineDirectory, name: str, *shared: str) -> SavedMachine:
    saved = checkpoint(location, *shared)
    Snapshots(location).add(name, f"the {name}", saved, [{"call": 1}])
    return saved


def files(location: MachineDirectory) -> set[str]:
    return {path.name for path in location.disk.iterdir()}


def test_what_was_taken_is_found(location: MachineDirectory) -> None:
    one, two = take(location, "one"), take(location, "two")
    snapshots = Snapshots(location)
    assert [(found.name, found.number) for found in snapshots.all()] == [("one", 1), ("two", 2)]
    assert snapshots.find("one").programs == ({"call": 1},)
    assert snapshots.find(None).name == "two"
    assert snapshots.find("one").table() == {
        "name": "one",
        "description": "the one",
        "made": snapshots.find("one").made,
        "size": sum(seal.size for seal in one.checkpoint.files.values()),
    }
    found = read_checkpoint(location, 2)
    assert found.checkpoint.files == two.checkpoint.files
    with pytest.raises(UsageError, match="no snapshot three") as reported:
        snapshots.find("three")
    assert reported.value.hint == "there are: one, two"


def test_where_there_is_none(location: MachineDirectory) -> None:
    assert Snapshots(location).all() == []
    with pytest.raises(UsageError, match="no snapshot at all"):
        Snapshots(location).find(None)
    with pytest.raises(UsageError, match="no snapshot one"):
        Snapshots(location).remove("one", frozenset(), None)


def test_files_go_with_the_last_who_has_them(location: MachineDirectory) -> None:
    take(location, "one")
    take(location, "two", "disk-000001.qcow2")
    checkpoint(location, "disk-000002.qcow2")  # where the machine is saved
    (location.disk / "disk-000009.qcow2").write_bytes(b"the machine's own")
    in_use = frozenset({"disk-000009.qcow2"})
    snapshots = Snapshots(location)
    snapshots.remove("one", in_use, 3)
    assert "memory-000001" not in files(location)
    assert "disk-000001.qcow2" in files(location)  # the second one's, too
    snapshots.remove("two", in_use, 3)
    assert files(location) == {
        "checkpoint-000003.json",
        "memory-000003",
        "disk-000003.qcow2",
        "disk-000002.qcow2",
        "disk-000009.qcow2",
    }
    read_checkpoint(location, 3)
    snapshots.sweep(in_use)
    assert files(location) == {"disk-000009.qcow2"}


def test_a_snapshot_where_the_machine_is_saved(location: MachineDirectory) -> None:
    """Only its name is removed: the machine resumes from it."""
    take(location, "one")
    Snapshots(location).remove("one", frozenset(), 1)
    assert Snapshots(location).all() == []
    read_checkpoint(location, 1)


def test_what_somebody_left_who_was_killed(
    location: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between a checkpoint and its name, or the reverse, loses nothing."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    take(location, "one")
    checkpoint(location)
    take(location, "three")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Snapshots, "sweep", killed)
        with pytest.raises(KeyboardInterrupt):
            Snapshots(location).remove("three", frozenset(), None)
    assert len(files(location)) == 9
    assert [one.name for one in Snapshots(location).all()] == ["one"]
    Snapshots(location).sweep(frozenset())
    assert files(location) == {"checkpoint-000001.json", "memory-000001", "disk-000001.qcow2"}
    read_checkpoint(location, 1)


def test_what_is_the_machine_s_disk_stays(location: MachineDirectory) -> None:
    """Whatever the caller requests: the machine boots from what state.json names."""
    take(location, "one")
    layers = ("disk-000001.qcow2", "disk-000002.qcow2")
    (location.disk / layers[1]).write_bytes(b"to be written to")
    location.write_status(Status(layers=layers))
    Snapshots(location).remove("one", frozenset(), None)
    assert files(location) == set(layers)


def test_a_full_disk_takes_no_snapshot_away(
    location: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    take(location, "one")
    second = checkpoint(location)
    monkeypatch.setattr(os, "fsync", full)
    snapshots = Snapshots(location)
    with pytest.raises(OSError, match="No space"):
        snapshots.add("two", "", second, [])
    with pytest.raises(OSError, match="No space"):
        snapshots.remove("one", frozenset(), None)
    assert [one.name for one in snapshots.all()] == ["one"]
    read_checkpoint(location, 1)


@pytest.mark.parametrize("fault", ["gone", "cut", "changed", "link", "manifest", "no manifest"])
def test_a_checkpoint_that_is_damaged(fault: str, location: MachineDirectory) -> None:
    take(location, "one")
    memory = location.disk / "memory-000001"
    if fault == "gone":
        memory.unlink()
    elif fault == "cut":
        memory.write_bytes(memory.read_bytes()[:-1])
    elif fault == "changed":
        memory.write_bytes(b"x" * memory.stat().st_size)
    elif fault == "link":
        memory.rename(location.directory / "elsewhere")
        memory.symlink_to(location.directory / "elsewhere")
    elif fault == "manifest":
        manifest_path(location.disk, 1).write_text("{")
    else:
        manifest_path(location.disk, 1).unlink()
    with pytest.raises(SavedMachineError, match="checkpoint 1 is damaged"):
        read_checkpoint(location, 1)
    # And it can be removed.
    Snapshots(location).remove("one", frozenset(), None)
    assert files(location) == set()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", value) for value in (None, 1, ["one"])),
        *(("number", value) for value in (None, -1, "1", 1.5, True, HUGE)),
        *(("size", value) for value in (None, -1, "7", HUGE)),
        *(("made", value) for value in (None, -1, "1", HUGE, float("nan"), float("inf"))),
        *(("description", value) for value in (None, 1)),
        *(("programs", value) for value in (None, 1, "one", [1], {"call": 1})),
    ],
    ids=lambda value: str(value)[:9],
)
def test_a_table_that_makes_no_sense(key: str, value: object, location: MachineDirectory) -> None:
    take(location, "zero")
    before = files(location)
    location.write_snapshots([GOOD, {**GOOD, "name": "two", key: value}])
    snapshots = Snapshots(location)
    with pytest.raises(HostError, match="is damaged") as reported:
        snapshots.all()
    assert reported.value.hint
    # Nothing is removed while nobody knows what is needed.
    for remove in (
        lambda: snapshots.sweep(frozenset()),
        lambda: snapshots.remove("one", frozenset(), None),
        lambda: snapshots.choose_name("mine", ""),
    ):
        with pytest.raises(HostError):
            remove()
    assert files(location) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(some.lists(some.dictionaries(some.sampled_from([*GOOD, "more"]), ANYTHING), max_size=3))
def test_any_table_is_read_or_refused(
    location: MachineDirectory, tables: list[dict[str, object]]
) -> None:
    location.write_snapshots([{**GOOD, **table} for table in tables])
    try:
        found = Snapshots(location).all()
    except HostError:
        return
    json.dumps([one.table() for one in found], allow_nan=False)
