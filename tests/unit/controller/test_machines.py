"""The machines of this host: made, found again, removed; names, labels, logs."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.machines import machines
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.machines.machines import Machines
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import BoincvmError, HostError, UsageError
from boincvm.image.manifest import (
    INITRD,
    KERNEL,
    MANIFEST,
    ROOT,
    ContentFile,
    Manifest,
    Recipe,
)
from boincvm.image.store import ImageStore
from boincvm.shim.machine_directory import MachineDirectory

BUS = BrokerAddress("login", "passcode", path="/nowhere")


def known(directory: Path, told: list[str] | None = None) -> Machines:
    changed: Callable[[str], None] = (lambda _: None) if told is None else told.append
    return Machines(directory / "machines", lambda _: BUS, changed)


def make(all_of_them: Machines, name: str, **options: object) -> LocalMachine:
    usual: dict[str, object] = {
        "image": "base",
        "memory": "256M",
        "cpus": 1,
        "disk": None,
        "network": False,
        "display": False,
        "labels": {},
    }
    return all_of_them.create(name, **{**usual, **options})  # type: ignore[arg-type]


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Made.


async def test_what_was_made_is_found_again(tmp_path: Path) -> None:
    told: list[str] = []
    first = known(tmp_path, told)
    assert first.load() == []
    made = make(first, "web.1", memory="1G", cpus=2, disk="8G", display=True, labels={"a": "ä"})
    assert told == ["web.1"]
    assert (made.state, made.has_shim, first.all()) == (VmState.POWERED_OFF, False, [made])
    second = known(tmp_path)
    assert second.load() == []
    (found,) = second.all()
    assert found.definition == made.definition
    assert found.definition.memory == 1 << 30


def test_one_with_less_memory_than_its_image_needs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    store = ImageStore()
    for name, least in (("older", None), ("base", 96 << 20)):
        files = tuple(ContentFile(file, 0, "0" * 64) for file in (INITRD, KERNEL, ROOT))
        recipe = Recipe(1, "bookworm", (), "0" * 64)
        manifest = Manifest("amd64", recipe, "6.1", "1", "1" * 64, (), files, least_memory=least)
        place = store.builds / name
        place.mkdir(parents=True)
        (place / MANIFEST).write_bytes(manifest.encode())
        for file in files:
            (place / file.name).touch()
        store.publish(name, place, manifest)
    all_of_them = known(tmp_path)
    with pytest.raises(UsageError, match=r"base needs 96.0 MiB of memory.* 64.0 MiB"):
        make(all_of_them, "small", memory="64M")
    assert all_of_them.all() == []
    make(all_of_them, "enough", memory="96M")
    make(all_of_them, "unmeasured", image="older", memory="64M")
    make(all_of_them, "to-be-built", image="missing", memory="64M")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("image", "../base"),
        ("image", ""),
        ("memory", "1K"),
        ("memory", "a lot"),
        ("memory", "9" * 1000),
        ("cpus", 0),
        ("cpus", 1 << 40),
        ("disk", "1T T"),
        ("labels", {str(number): "" for number in range(49)}),
        ("labels", {"a": "x" * 256}),
        ("labels", {"a": "two\nlines"}),
        ("labels", {"\ud800": ""}),
    ],
)
def test_what_cannot_be_made_leaves_nothing(option: str, value: object, tmp_path: Path) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    with pytest.raises(UsageError):
        make(all_of_them, "a", **{option: value})
    assert list((tmp_path / "machines").iterdir()) == []


def test_no_name_twice(tmp_path: Path) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    first = make(all_of_them, "a", memory="256M")
    with pytest.raises(UsageError, match="there is already a machine a"):
        make(all_of_them, "a", memory="512M")
    assert first.directory.definition().memory == 256 << 20
    make(all_of_them, "A")


def test_there_is_an_end_to_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "MOST", 1)
    all_of_them = known(tmp_path)
    all_of_them.load()
    make(all_of_them, "a")
    with pytest.raises(UsageError, match="there are 1 machines"):
        make(all_of_them, "b")


@pytest.mark.parametrize("fails", ["write_bus", "write_status", "_write"])
def test_a_full_disk_leaves_no_half_machine(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(MachineDirectory, fails, full_disk)
        with pytest.raises(OSError, match="No space"):
            make(all_of_them, "a")
    make(all_of_them, "a")


# Found again.


def test_a_directory_left_half_made_is_removed(tmp_path: Path) -> None:
    first = known(tmp_path)
    first.load()
    make(first, "whole")
    half = make(first, "half").directory
    (half.directory / "machine.json").unlink()
    (half.disk / "disk-000001.qcow2").write_bytes(b"x")
    second = known(tmp_path)
    assert second.load() == []
    assert [one.id for one in second.all()] == ["whole"]
    assert not half.directory.exists()
    make(second, "half")


def test_one_that_somebody_holds_is_not_taken_for_half_made(tmp_path: Path) -> None:
    first = known(tmp_path)
    first.load()
    place = make(first, "a").directory
    (place.directory / "machine.json").unlink()
    with place.held():
        (trouble,) = known(tmp_path).load()
    assert "a is running" in trouble
    assert place.disk.is_dir()


@pytest.mark.parametrize("name", ["machine.json", "state.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"made": 1' + b"0" * 400 + b"}",
        b"x" * (2 << 20),
    ],
    ids=lambda content: str(content[:9]),
)
def test_a_damaged_one_keeps_no_other_away(name: str, content: bytes, tmp_path: Path) -> None:
    first = known(tmp_path)
    first.load()
    for one in "ab":
        make(first, one)
    (tmp_path / "machines" / "a" / name).write_bytes(content)
    second = known(tmp_path)
    (trouble,) = second.load()
    assert name in trouble
    assert len(trouble) <= 500
    assert [one.id for one in second.all()] == ["b"]
    # Nothing of it was removed, so that it can be repaired.
    assert (tmp_path / "machines" / "a" / name).read_bytes() == content


def test_what_is_no_machine_of_its_name(tmp_path: Path) -> None:
    first = known(tmp_path)
    first.load()
    place = make(first, "a").directory
    shutil.copytree(place.directory, tmp_path / "machines" / "copy")
    shutil.copytree(place.directory, tmp_path / "machines" / os.fsdecode(b"\xff"))
    (tmp_path / "machines" / "file").write_text("x")
    (tmp_path / "machines" / "link").symlink_to(tmp_path)
    second = known(tmp_path)
    troubles = second.load()
    assert len(troubles) == 4
    for trouble in troubles:
        trouble.encode()  # fit for being told
    assert [one.id for one in second.all()] == ["a"]
    found = second.find("a")
    assert found is not None
    assert found.directory.directory == place.directory
    assert tmp_path.is_dir()


# Removed; and what they had to say.


def test_one_that_is_removed_half_can_be_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    all_of_them = known(tmp_path, told)
    all_of_them.load()
    machine = make(all_of_them, "a")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(shutil, "rmtree", full_disk)
        with pytest.raises(OSError, match="No space"):
            all_of_them.remove(machine)
    assert all_of_them.find("a") is machine
    all_of_them.remove(machine)
    assert all_of_them.all() == []
    assert told == ["a", "a"]
    with pytest.raises(HostError, match="has gone"):
        all_of_them.remove(machine)


def test_one_that_is_held_is_neither_removed_nor_discarded(tmp_path: Path) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    machine = make(all_of_them, "a")
    with machine.directory.held():
        for refused in (all_of_them.remove, all_of_them.discard):
            with pytest.raises(UsageError, match="a is running"):
                refused(machine)
    assert machine.directory.definition() == machine.definition


def test_the_end_of_a_log(tmp_path: Path) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    machine = make(all_of_them, "a")
    assert all_of_them.log_lines("a", 10) == []
    machine.directory.log.write_bytes(b"one\ntwo\n\xff\nlast")
    assert all_of_them.log_lines("a", 2) == ["\ufffd", "last"]
    assert all_of_them.log_lines("a", 1 << 52) == ["one", "two", "\ufffd", "last"]
    assert all_of_them.log_lines("a", 0) == []
    with pytest.raises(BoincvmError, match="not a machine of this host"):
        all_of_them.log_lines("b", 1)


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_a_log_that_is_no_file(kind: str, tmp_path: Path) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    log = make(all_of_them, "a").directory.log
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("/etc/passwd"), "directory": os.mkdir}[
        kind
    ](log)
    with pytest.raises(HostError, match="cannot be read"):
        all_of_them.log_lines("a", 10)


def test_of_a_huge_log_the_end_is_read(tmp_path: Path) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    machine = make(all_of_them, "a")
    with machine.directory.log.open("wb") as file:
        file.truncate(64 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    lines = all_of_them.log_lines("a", 3)
    assert lines[-1] == "last"
    assert sum(map(len, lines)) < 8 << 20
