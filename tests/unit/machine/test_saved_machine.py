"""Machines on disk: which checkpoint is used, and which files are kept."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boincvm.hypervisor.contract import Checkpoint, FileSeal
from boincvm.job.model import MachineShape
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.saved_machine import (
    SCHEMA,
    Found,
    SavedMachine,
    SavedTask,
    check_files,
    find_saved,
    manifest_path,
    manifests,
    next_number,
    read_manifest,
    remove_unneeded,
    write_saved,
)

TASK = SavedTask(
    number=2,
    program={"id": 5, "acknowledged": [1, 2]},
    stdin=17,
    files={"out.txt": 12, "naïve/\udc80": 0},
    guest=1.5,
    wall=20.25,
    fraction_done=0.5,
)


def seal(content: bytes) -> FileSeal:
    return FileSeal(len(content), hashlib.blake2b(content, digest_size=32).hexdigest())


def machine(number: int, files: dict[str, bytes], task: SavedTask | None = TASK) -> SavedMachine:
    return SavedMachine(
        checkpoint=Checkpoint(
            number, {name: seal(content) for name, content in files.items()}, {"chain": ["a", 1]}
        ),
        driver="qemu",
        image="0" * 64,
        shape=MachineShape(cpus=2, disk=1 << 30, network=True),
        link={"next_call": 9},
        steps=(0, 2),
        task=task,
        made=1234.5,
    )


def save(directory: Path, number: int, **shared: bytes) -> SavedMachine:
    """Make a checkpoint with its own memory file and layer, and files of others."""
    files = {
        f"memory-{number:06d}": b"memory %d" % number * 9,
        f"disk-{number:06d}.qcow2": b"disk %d" % number,
        **shared,
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    saved = machine(number, files)
    write_saved(directory, saved)
    return saved


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def seal_anew(path: Path, **changes: object) -> None:
    """Write the manifest with these changes, and a right checksum."""
    table = json.loads(path.read_bytes())
    del table["checksum"]
    table |= changes
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    checksum = hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
    path.write_text(json.dumps({**table, "checksum": checksum}))


def only_older(directory: Path, older: SavedMachine, *reasons: str) -> None:
    """Check that checkpoint 7 is not used, for these reasons."""
    found = find_saved(directory)
    assert found.saved == older
    assert len(found.lost) == 1
    assert "checkpoint 7" in found.lost[0]
    assert "\n" not in found.lost[0]
    for reason in reasons:
        assert reason in found.lost[0]


@pytest.fixture
def older(tmp_path: Path) -> SavedMachine:
    """Return checkpoint 6, beside which there is 7."""
    older = save(tmp_path, 6)
    save(tmp_path, 7)
    return older


@pytest.mark.parametrize("task", [TASK, None], ids=["task", "none"])
def test_what_is_written_is_read(tmp_path: Path, task: SavedTask | None) -> None:
    (tmp_path / "memory-000003").write_bytes(b"abc")
    saved = machine(3, {"memory-000003": b"abc"}, task)
    write_saved(tmp_path, saved)
    assert find_saved(tmp_path) == Found(saved, ())
    assert names(tmp_path) == ["checkpoint-000003.json", "memory-000003"]


def test_the_time_is_written_where_it_is_not_given(tmp_path: Path) -> None:
    write_saved(tmp_path, machine(3, {})._replace(made=0.0))
    made = read_manifest(manifest_path(tmp_path, 3)).made
    assert made == pytest.approx(manifest_path(tmp_path, 3).stat().st_mtime, abs=60)


def test_nothing_saved(tmp_path: Path) -> None:
    assert find_saved(tmp_path) == Found(None, ())
    assert find_saved(tmp_path / "nothing") == Found(None, ())


def test_the_newest_counts(tmp_path: Path) -> None:
    for number in (2, 1_000_000, 999_999, 10):
        save(tmp_path, number)
    saved = find_saved(tmp_path).saved
    assert saved is not None
    assert saved.checkpoint.number == 1_000_000


def test_all_are_damaged(tmp_path: Path, older: SavedMachine) -> None:
    for number in (6, 7):
        (tmp_path / f"memory-00000{number}").unlink()
    found = find_saved(tmp_path)
    assert found.saved is None
    assert [line[:12] for line in found.lost] == ["checkpoint 7", "checkpoint 6"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make checkpoints 6 and 7; a test that changes them must restore them."""
    directory = tmp_path_factory.mktemp("pair")
    save(directory, 6)
    save(directory, 7)
    return directory


def newest_with(pair: Path, name: str, content: bytes) -> Found:
    path = pair / name
    before = path.read_bytes()
    try:
        path.write_bytes(content)
        return find_saved(pair)
    finally:
        path.write_bytes(before)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_byte_of_the_manifest_has_changed(pair: Path, data: st.DataObject) -> None:
    content = bytearray(manifest_path(pair, 7).read_bytes())
    good = find_saved(pair)
    location = data.draw(st.integers(0, len(content) - 1))
    content[location] = data.draw(st.integers(0, 255))
    found = newest_with(pair, "checkpoint-000007.json", bytes(content))
    if found != good:  # JSON has a few ways to write the same: a tab for a space
        assert found.saved is not None
        assert found.saved.checkpoint.number == 6
        assert len(found.lost) == 1


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_no_changed_byte_makes_another_machine(pair: Path, mask: int) -> None:
    path, good, used = manifest_path(pair, 7), find_saved(pair), 0
    content = path.read_bytes()
    for location in range(len(content)):
        changed = content[:location] + bytes([content[location] ^ mask]) + content[location + 1 :]
        found = newest_with(pair, path.name, changed)
        used += found == good
        assert found == good or found.saved == find_older(pair)
    assert used < len(content) / 20


def find_older(pair: Path) -> SavedMachine:
    return read_manifest(manifest_path(pair, 6))


@pytest.mark.parametrize("name", ["memory-000007", "disk-000007.qcow2"])
def test_any_byte_of_a_file_has_changed(pair: Path, name: str) -> None:
    content = (pair / name).read_bytes()
    for location in range(len(content)):
        changed = content[:location] + bytes([content[location] ^ 1]) + content[location + 1 :]
        found = newest_with(pair, name, changed)
        assert found == Found(
            find_older(pair), (f"checkpoint 7 is damaged: {name} differs from what was written",)
        )


@pytest.mark.parametrize("length", [0, 5, 62, 64, 1000])
def test_a_file_has_another_size(pair: Path, length: int) -> None:
    content = (pair / "memory-000007").read_bytes()
    found = newest_with(pair, "memory-000007", content[:length].ljust(length, b"x"))
    assert found.saved == find_older(pair)
    assert "memory-000007 has changed in size" in found.lost[0]


def test_every_shorter_manifest(pair: Path) -> None:
    content = manifest_path(pair, 7).read_bytes()
    for length in range(len(content)):
        found = newest_with(pair, "checkpoint-000007.json", content[:length])
        assert found.saved == find_older(pair)


def test_a_file_is_missing(tmp_path: Path, older: SavedMachine) -> None:
    (tmp_path / "disk-000007.qcow2").unlink()
    only_older(tmp_path, older, "disk-000007.qcow2 is missing")


@pytest.mark.parametrize("kind", ["link", "dangling", "directory", "fifo"])
@pytest.mark.timeout(30)
def test_something_else_in_the_place_of_a_file(
    tmp_path: Path, older: SavedMachine, kind: str
) -> None:
    path = tmp_path / "memory-000007"
    path.rename(tmp_path / "elsewhere")
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("elsewhere" if kind == "link" else "nowhere")
    only_older(tmp_path, older, "memory-000007 is missing")


@pytest.mark.parametrize("schema", [SCHEMA + 1, 1000])
def test_a_newer_boincvm_has_made_it(tmp_path: Path, older: SavedMachine, schema: int) -> None:
    seal_anew(manifest_path(tmp_path, 7), schema=schema)
    only_older(tmp_path, older, "newer boincvm", f"schema {schema}", f"knows {SCHEMA}")
    with pytest.raises(SavedMachineError):
        read_manifest(manifest_path(tmp_path, 7))


def test_a_newer_one_need_not_look_like_ours(tmp_path: Path, older: SavedMachine) -> None:
    manifest_path(tmp_path, 7).write_text(json.dumps({"schema": SCHEMA + 1}))
    only_older(tmp_path, older, "newer boincvm")


@pytest.mark.parametrize("schema", [SCHEMA - 1, 0, -1, "3", None, True])
def test_a_schema_that_there_is_not(tmp_path: Path, older: SavedMachine, schema: object) -> None:
    seal_anew(manifest_path(tmp_path, 7), schema=schema)
    only_older(tmp_path, older, "damaged", f"its schema is {schema!r}", f"knows {SCHEMA}")


def test_a_number_that_is_not_the_file_names(tmp_path: Path, older: SavedMachine) -> None:
    shutil.copy(manifest_path(tmp_path, 6), manifest_path(tmp_path, 7))
    only_older(tmp_path, older, "its number does not match")


@pytest.mark.parametrize(
    "name",
    ["../memory-000007", "/nowhere/passwd", "..", ".", "", "a/memory-000007", "memory-000007/..",
     "memory-7", "checkpoint-000007.json", "memory-000007\n", "saved.json", "\0",
     ".sav", "../a.sav", "a/b.vdi", ".a.vdi", "-.sav", f"{'a' * 101}.sav"],
)  # fmt: skip
def test_names_that_no_checkpoint_has(tmp_path: Path, older: SavedMachine, name: str) -> None:
    seal_anew(manifest_path(tmp_path, 7), files={name: seal(b"")._asdict()})
    only_older(tmp_path, older, "damaged", "which is not a checkpoint's file")


@pytest.mark.parametrize(
    "changes",
    [{"files": []}, {"files": {"memory-000007": 3}}, {"files": {"memory-000007": {"size": 1}}},
     {"files": {"memory-000007": {"size": -1, "digest": ""}}},
     {"files": {f"memory-{n:06d}": {"size": 0, "digest": ""} for n in range(257)}},
     {"machine": None}, {"shape": {"bogus": 1}}, {"shape": 1}, {"link": []}, {"steps": "01"},
     {"steps": [-1]}, {"steps": [True]}, {"task": {}}, {"task": []}, {"driver": 1}, {"image": None},
     {"number": "7"}, {"number": 7.0}, {"made": "now"}, {"made": float("nan")}, {"made": -1},
     {"task": {**TASK._asdict(), "guest": -1}}, {"task": {**TASK._asdict(), "program": 1}},
     {"task": {**TASK._asdict(), "files": {"a": "b"}}}, {"task": {**TASK._asdict(), "more": 1}}],
    ids=lambda changes: str(changes)[:40],
)  # fmt: skip
def test_values_that_make_no_sense(
    tmp_path: Path, older: SavedMachine, changes: dict[str, object]
) -> None:
    seal_anew(manifest_path(tmp_path, 7), **changes)
    only_older(tmp_path, older, "damaged")
    with pytest.raises(ValueError, match=r"is invalid|which is not a checkpoint's file"):
        read_manifest(manifest_path(tmp_path, 7))


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"1", b"null", b'"text"', b"{}", b"\xff", b"[" * 100_000, b"1" * 5000],
    ids=lambda content: repr(content[:9]),
)
def test_manifests_that_are_none(tmp_path: Path, older: SavedMachine, content: bytes) -> None:
    manifest_path(tmp_path, 7).write_bytes(content)
    only_older(tmp_path, older, "damaged")


def test_a_manifest_that_is_too_large(tmp_path: Path, older: SavedMachine) -> None:
    path = manifest_path(tmp_path, 7)
    content = path.read_bytes()
    path.write_bytes(content.ljust(1 << 20))
    assert find_saved(tmp_path).lost == ()
    path.write_bytes(content.ljust((1 << 20) + 1))
    only_older(tmp_path, older, "too large")


def test_a_manifest_that_is_a_directory(tmp_path: Path, older: SavedMachine) -> None:
    manifest_path(tmp_path, 7).unlink()
    manifest_path(tmp_path, 7).mkdir()
    only_older(tmp_path, older, "damaged")


def files_of(*numbers: int) -> list[str]:
    """Return the files that `save` has written for them."""
    return [
        name
        for number in numbers
        for name in (
            f"checkpoint-{number:06d}.json", f"disk-{number:06d}.qcow2", f"memory-{number:06d}"
        )
    ]  # fmt: skip


def test_the_two_newest_stay(tmp_path: Path) -> None:
    for number in (1, 2, 9, 10):
        save(tmp_path, number)
    remove_unneeded(tmp_path)
    assert names(tmp_path) == sorted(files_of(9, 10))
    assert find_saved(tmp_path).lost == ()
    remove_unneeded(tmp_path)
    assert names(tmp_path) == sorted(files_of(9, 10))


@pytest.mark.parametrize(("stored", "left"), [(0, []), (1, [3]), (3, [1, 2, 3]), (9, [1, 2, 3])])
def test_as_many_stay_as_are_wanted(tmp_path: Path, stored: int, left: list[int]) -> None:
    for number in (1, 2, 3):
        save(tmp_path, number)
    remove_unneeded(tmp_path, keep=stored)
    assert names(tmp_path) == sorted(files_of(*left))


def test_files_that_checkpoints_share(tmp_path: Path) -> None:
    shared = {"memory-000001": b"memory 1" * 9, "disk-000001.qcow2": b"disk 1"}
    save(tmp_path, 1)
    save(tmp_path, 2, **shared)
    save(tmp_path, 3, **shared)
    remove_unneeded(tmp_path)
    assert names(tmp_path) == sorted([*shared, *files_of(2, 3)])
    assert find_saved(tmp_path).lost == ()
    check_older(tmp_path, 2)
    save(tmp_path, 4)
    save(tmp_path, 5)
    remove_unneeded(tmp_path)
    assert names(tmp_path) == sorted(files_of(4, 5))


def check_older(directory: Path, number: int) -> None:
    """Check that all files of that checkpoint exist, too."""
    check_files(directory, read_manifest(manifest_path(directory, number)).checkpoint.files)


def test_what_the_running_machine_uses_stays(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        save(tmp_path, number)
    (tmp_path / "disk-000004.qcow2").touch()
    remove_unneeded(
        tmp_path, keep=1, in_use=frozenset({"disk-000004.qcow2", "memory-000001", "not there"})
    )
    assert names(tmp_path) == sorted(["disk-000004.qcow2", "memory-000001", *files_of(3)])


@pytest.mark.parametrize(
    ("newest", "left"), [(9, [2, 3]), (3, [2, 3]), (2, [1, 2]), (1, [1]), (0, [])]
)
def test_newer_ones_than_the_newest_go(tmp_path: Path, newest: int, left: list[int]) -> None:
    for number in (1, 2, 3):
        save(tmp_path, number)
    remove_unneeded(tmp_path, newest=newest)
    assert names(tmp_path) == sorted(files_of(*left))


VIRTUALBOX = (
    "disk-000001.vdi", "{2f3d3c57-6a1c-4f52-9a0e-53d1e7b9a001}.vdi",
    "2026-11-30T03-26-51-123456789Z.sav", "{2f3d3c57-6a1c-4f52-9a0e-53d1e7b9a001}.sav",
)  # fmt: skip


VMWARE = (
    "disk000001.vmdk", "disk000001-000001.vmdk", "boincvm-0badcafe-Snapshot1.vmsn",
    "boincvm-0badcafe-Snapshot1.vmem", "boincvm-0badcafe-1a2b3c4d.vmss",
)  # fmt: skip


@pytest.mark.parametrize("named", [VIRTUALBOX, VMWARE], ids=["virtualbox", "vmware"])
def test_files_that_a_hypervisor_has_named(tmp_path: Path, named: tuple[str, ...]) -> None:
    """They are found again, kept while they are needed, and removed afterwards."""
    for name in named:
        (tmp_path / name).write_bytes(b"abc")
    saved = machine(2, dict.fromkeys(named, b"abc"))
    write_saved(tmp_path, saved)
    remove_unneeded(tmp_path)
    assert names(tmp_path) == sorted(["checkpoint-000002.json", *named])
    found = find_saved(tmp_path).saved
    assert found is not None
    assert found.checkpoint.files == saved.checkpoint.files
    remove_unneeded(tmp_path, keep=0, in_use=frozenset(named[:1]))
    assert names(tmp_path) == [named[0]]


def test_half_written_and_former_files_go_and_others_do_not(tmp_path: Path) -> None:
    save(tmp_path, 1)
    ours = ["transfer-disk", "disk.qcow2", "memory-1", "notes", "checkpoint-1.json", "part",
            "x.part", "disk-000001.qcow2.bak"]  # fmt: skip
    leftovers = [".checkpoint-000002.json.part", "saved.json", "memory-000002", "disk-000002",
                 "disk-000003.qcow2"]  # fmt: skip
    for name in ours + leftovers:
        (tmp_path / name).touch()
    (tmp_path / "directory").mkdir()
    remove_unneeded(tmp_path)
    assert names(tmp_path) == sorted([*ours, "directory", *files_of(1)])


def test_a_manifest_that_cannot_be_read_goes_with_its_files(
    tmp_path: Path, older: SavedMachine
) -> None:
    manifest_path(tmp_path, 7).write_bytes(b"{}")
    remove_unneeded(tmp_path)
    assert names(tmp_path) == sorted(files_of(6))
    assert find_saved(tmp_path) == Found(older, ())


def test_no_manifest_stays_without_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was removed last before a crash, the rest is complete."""
    for number in (1, 2, 3):
        save(tmp_path, number)
    unlink, removed = Path.unlink, list[str]()

    def watched(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        removed.append(path.name)
        for number, _ in manifests(tmp_path):
            check_older(tmp_path, number)

    monkeypatch.setattr(Path, "unlink", watched)
    remove_unneeded(tmp_path, newest=2, keep=1)
    assert sorted(removed) == sorted(files_of(1, 3))


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    assert next_number(tmp_path) == 1
    save(tmp_path, 4)
    assert next_number(tmp_path) == 5
    for name, number in [
        ("memory-000007", 8), ("disk-000010.qcow2", 11), ("disk-000012", 13),
        ("{30}.vdi", 13), ("30.sav", 13),
        ("checkpoint-000020.json", 21), ("memory-1000000", 1_000_001),
        ("memory-2000000.bak", 1_000_001), ("notes-3000000", 1_000_001),
    ]:  # fmt: skip
        (tmp_path / name).touch()
        assert next_number(tmp_path) == number


def test_a_manifest_that_would_not_be_read_is_not_written(tmp_path: Path) -> None:
    many = machine(1, {f"memory-{number:06d}": b"" for number in range(257)})
    long = machine(1, {}, TASK._replace(program={"text": "x" * (1 << 20)}))
    for saved in (many, long):
        with pytest.raises(OSError, match="too large"):
            write_saved(tmp_path, saved)
        assert manifests(tmp_path) == []


@pytest.mark.parametrize("field", ["number", "stdin"])
def test_what_counts_things_is_a_whole_number(tmp_path: Path, field: str) -> None:
    write_saved(tmp_path, machine(1, {}, TASK._replace(**{field: 1.5})))
    with pytest.raises(ValueError, match="is invalid"):
        read_manifest(manifest_path(tmp_path, 1))
