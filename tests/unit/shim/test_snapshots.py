"""A machine's snapshots: which files are theirs, what a kill leaves, and hostile tables."""

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
def place(tmp_path: Path) -> MachineDirectory:
    made = MachineDirectory(tmp_path)
    made.disk.mkdir()
    made.write_status(Status())
    return made


def checkpoint(place: MachineDirectory, *shared: str) -> SavedMachine:
    """On the disk: its memory, its disk, and others' files that it has, too."""
    number = next_number(place.disk)
    names = (f"memory-{number:06d}", f"disk-{number:06d}.qcow2")
    for name in names:
        (place.disk / name).write_bytes(name.encode())
    files = {name: FileSeal(*digest_of(place.disk / name)) for name in (*names, *shared)}
    made = Checkpoint(number, files, {})
    saved = SavedMachine(made, "qemu", "digest", MachineShape(), {}, (), None)
    write_saved(place.disk, saved)
    return saved


def take(place: MachineDirectory, name: str, *shared: str) -> SavedMachine:
    saved = checkpoint(place, *shared)
    Snapshots(place).add(name, f"the {name}", saved, [{"call": 1}])
    return saved


def files(place: MachineDirectory) -> set[str]:
    return {path.name for path in place.disk.iterdir()}


def test_what_was_taken_is_found(place: MachineDirectory) -> None:
    one, two = take(place, "one"), take(place, "two")
    snapshots = Snapshots(place)
    assert [(found.name, found.number) for found in snapshots.all()] == [("one", 1), ("two", 2)]
    assert snapshots.find("one").programs == ({"call": 1},)
    assert snapshots.find(None).name == "two"
    assert snapshots.find("one").table() == {
        "name": "one",
        "description": "the one",
        "made": snapshots.find("one").made,
        "size": sum(seal.size for seal in one.checkpoint.files.values()),
    }
    found = read_checkpoint(place, 2)
    assert found.checkpoint.files == two.checkpoint.files
    with pytest.raises(UsageError, match="no snapshot three") as told:
        snapshots.find("three")
    assert told.value.hint == "there are: one, two"


def test_where_there_is_none(place: MachineDirectory) -> None:
    assert Snapshots(place).all() == []
    with pytest.raises(UsageError, match="no snapshot at all"):
        Snapshots(place).find(None)
    with pytest.raises(UsageError, match="no snapshot one"):
        Snapshots(place).remove("one", frozenset(), None)


def test_files_go_with_the_last_who_has_them(place: MachineDirectory) -> None:
    take(place, "one")
    take(place, "two", "disk-000001.qcow2")
    checkpoint(place, "disk-000002.qcow2")  # where the machine is saved
    (place.disk / "disk-000009.qcow2").write_bytes(b"the machine's own")
    in_use = frozenset({"disk-000009.qcow2"})
    snapshots = Snapshots(place)
    snapshots.remove("one", in_use, 3)
    assert "memory-000001" not in files(place)
    assert "disk-000001.qcow2" in files(place)  # the second one's, too
    snapshots.remove("two", in_use, 3)
    assert files(place) == {
        "checkpoint-000003.json",
        "memory-000003",
        "disk-000003.qcow2",
        "disk-000002.qcow2",
        "disk-000009.qcow2",
    }
    read_checkpoint(place, 3)
    snapshots.sweep(in_use)
    assert files(place) == {"disk-000009.qcow2"}


def test_a_snapshot_where_the_machine_is_saved(place: MachineDirectory) -> None:
    """Only its name goes: the machine goes on from there."""
    take(place, "one")
    Snapshots(place).remove("one", frozenset(), 1)
    assert Snapshots(place).all() == []
    read_checkpoint(place, 1)


def test_what_somebody_left_who_was_killed(
    place: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a checkpoint and its name, or a name and its checkpoint, and nothing is lost."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    take(place, "one")
    checkpoint(place)
    take(place, "three")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Snapshots, "sweep", killed)
        with pytest.raises(KeyboardInterrupt):
            Snapshots(place).remove("three", frozenset(), None)
    assert len(files(place)) == 9
    assert [one.name for one in Snapshots(place).all()] == ["one"]
    Snapshots(place).sweep(frozenset())
    assert files(place) == {"checkpoint-000001.json", "memory-000001", "disk-000001.qcow2"}
    read_checkpoint(place, 1)


def test_what_is_the_machine_s_disk_stays(place: MachineDirectory) -> None:
    """Whatever the caller says of it: it boots from what state.json names."""
    take(place, "one")
    layers = ("disk-000001.qcow2", "disk-000002.qcow2")
    (place.disk / layers[1]).write_bytes(b"to be written to")
    place.write_status(Status(layers=layers))
    Snapshots(place).remove("one", frozenset(), None)
    assert files(place) == set(layers)


def test_a_full_disk_takes_no_snapshot_away(
    place: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    take(place, "one")
    second = checkpoint(place)
    monkeypatch.setattr(os, "fsync", full)
    snapshots = Snapshots(place)
    with pytest.raises(OSError, match="No space"):
        snapshots.add("two", "", second, [])
    with pytest.raises(OSError, match="No space"):
        snapshots.remove("one", frozenset(), None)
    assert [one.name for one in snapshots.all()] == ["one"]
    read_checkpoint(place, 1)


@pytest.mark.parametrize("fault", ["gone", "cut", "changed", "link", "manifest", "no manifest"])
def test_a_checkpoint_that_is_damaged(fault: str, place: MachineDirectory) -> None:
    take(place, "one")
    memory = place.disk / "memory-000001"
    if fault == "gone":
        memory.unlink()
    elif fault == "cut":
        memory.write_bytes(memory.read_bytes()[:-1])
    elif fault == "changed":
        memory.write_bytes(b"x" * memory.stat().st_size)
    elif fault == "link":
        memory.rename(place.directory / "elsewhere")
        memory.symlink_to(place.directory / "elsewhere")
    elif fault == "manifest":
        manifest_path(place.disk, 1).write_text("{")
    else:
        manifest_path(place.disk, 1).unlink()
    with pytest.raises(SavedMachineError, match="checkpoint 1 is damaged"):
        read_checkpoint(place, 1)
    # And it can be removed.
    Snapshots(place).remove("one", frozenset(), None)
    assert files(place) == set()


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
def test_a_table_that_makes_no_sense(key: str, value: object, place: MachineDirectory) -> None:
    take(place, "zero")
    before = files(place)
    place.write_snapshots([GOOD, {**GOOD, "name": "two", key: value}])
    snapshots = Snapshots(place)
    with pytest.raises(HostError, match="is damaged") as told:
        snapshots.all()
    assert told.value.hint
    # Nothing is removed while nobody knows what is needed.
    for remove in (
        lambda: snapshots.sweep(frozenset()),
        lambda: snapshots.remove("one", frozenset(), None),
        lambda: snapshots.choose_name("mine", ""),
    ):
        with pytest.raises(HostError):
            remove()
    assert files(place) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(some.lists(some.dictionaries(some.sampled_from([*GOOD, "more"]), ANYTHING), max_size=3))
def test_any_table_is_read_or_refused(
    place: MachineDirectory, tables: list[dict[str, object]]
) -> None:
    place.write_snapshots([{**GOOD, **table} for table in tables])
    try:
        found = Snapshots(place).all()
    except HostError:
        return
    json.dumps([one.table() for one in found], allow_nan=False)
