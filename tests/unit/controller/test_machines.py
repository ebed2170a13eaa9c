"""The machines of this host: created, found again, removed; names, labels, logs."""

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.machines import machines
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.machines.machines import Machines
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import (
    BoincvmError,
    HostDiskFullError,
    HostError,
    ImageMissingError,
    UsageError,
)
from boincvm.hypervisor.qcow2 import write_overlay
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
from boincvm.shim.machine_directory import MachineDirectory, Status
from support.controller.named_image import name_image
from support.packed_images import publish

BUS = BrokerAddress("login", "passcode", path="/nowhere")


def known(directory: Path, reported: list[str] | None = None) -> Machines:
    changed: Callable[[str], None] = (lambda _: None) if reported is None else reported.append
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


async def test_a_clone_has_the_disk_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    source = make(all_of_them, "a", memory="1G", labels={"site": "cern"})
    disk = b"layer" + bytes(1 << 20) + b"end"
    (source.directory.disk / "disk-1.qcow2").write_bytes(disk)
    (source.directory.disk / "memory-1").write_bytes(b"of a snapshot")
    status = Status(image="digest", layers=("disk-1.qcow2",), instance="life", was_shut_down=True)
    source.set_status(status)
    made = await all_of_them.clone(source, "b")
    expected = source.definition._replace(id="b", made=made.definition.made)
    assert made.definition == expected
    assert (made.status.state, made.status.image) == (VmState.POWERED_OFF, "digest")
    assert [path.name for path in made.directory.disk.iterdir()] == ["disk-1.qcow2"]
    assert (made.directory.disk / "disk-1.qcow2").read_bytes() == disk
    with pytest.raises(UsageError, match="there is already a machine b"):
        await all_of_them.clone(source, "b")
    source.set_status(status._replace(state=VmState.SAVED, saved=1))
    with pytest.raises(UsageError, match="a is saved"):
        await all_of_them.clone(source, "c")
    source.set_status(status._replace(layers=("gone.qcow2",)))
    with pytest.raises(HostError, match="the disk of a cannot be copied"):
        await all_of_them.clone(source, "c")
    with source.directory.held(), pytest.raises(UsageError, match="a is running"):
        await all_of_them.clone(source, "c")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(MachineDirectory, "keep_image", full_disk)
        source.set_status(status)
        with pytest.raises(HostDiskFullError, match="No space"):
            await all_of_them.clone(source, "c")
    assert sorted(path.name for path in (tmp_path / "machines").iterdir()) == ["a", "b"]


async def test_clones_that_are_being_made_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "MOST", 3)
    all_of_them = known(tmp_path)
    all_of_them.load()
    source, other = make(all_of_them, "a"), make(all_of_them, "b")
    source.set_status(Status(layers=("gone.qcow2",), was_shut_down=True))
    with pytest.raises(HostError, match="cannot be copied"):
        await all_of_them.clone(source, "c")  # it does not count any more
    source.set_status(Status())
    made, refused = await asyncio.gather(
        all_of_them.clone(source, "c"), all_of_them.clone(other, "d"), return_exceptions=True
    )
    assert isinstance(made, LocalMachine)
    assert str(refused) == "there are 3 machines"
    assert len(all_of_them.all()) == 3


async def test_a_clone_is_made_only_of_a_machine_that_was_shut_down(tmp_path: Path) -> None:
    """Its file system may be inconsistent otherwise, and so would be that of each clone."""
    all_of_them = known(tmp_path)
    all_of_them.load()
    source = make(all_of_them, "a")
    (source.directory.disk / "disk-1.qcow2").touch()
    orderly = Status(image="digest", layers=("disk-1.qcow2",), was_shut_down=True)
    for status in (
        orderly._replace(was_shut_down=False),  # boincvm stop --now
        orderly._replace(state=VmState.ABORTED, why="the guest has hung", was_shut_down=False),
    ):
        source.set_status(status)
        with pytest.raises(UsageError, match="a was not shut down by boincvm stop") as refused:
            await all_of_them.clone(source, "b")
        assert ("(it is aborted: the guest has hung)" in refused.value.message) is bool(status.why)
        assert "boincvm start a, boincvm stop a" in refused.value.hint
    # One that did not come up at its first start has no disk yet.
    source.set_status(Status(state=VmState.ABORTED))
    await all_of_them.clone(source, "b")
    source.set_status(orderly)
    await all_of_them.clone(source, "c")
    # The next start has failed before the guest began.
    source.set_status(orderly._replace(state=VmState.ABORTED, why="there is no hypervisor"))
    await all_of_them.clone(source, "d")


def test_a_script_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the first-boot script has 65538 bytes"):
        make(known(tmp_path), "a", first_boot="é" * (machines.LONGEST_SCRIPT // 2 + 1))


async def test_what_was_made_is_found_again(tmp_path: Path) -> None:
    reported: list[str] = []
    first = known(tmp_path, reported)
    assert first.load() == []
    made = make(first, "web.1", memory="1G", cpus=2, disk="8G", display=True, labels={"a": "ä"})
    assert reported == ["web.1"]
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
        location = store.builds / name
        location.mkdir(parents=True)
        (location / MANIFEST).write_bytes(manifest.encode())
        for file in files:
            (location / file.name).touch()
        (location / ROOT).unlink()
        write_overlay(location / ROOT, 8 << 30)
        store.publish(name, location, manifest)
    all_of_them = known(tmp_path)
    with pytest.raises(UsageError, match=r"base needs 96.0 MiB of memory.* 64.0 MiB"):
        make(all_of_them, "small", memory="64M")
    assert all_of_them.all() == []
    with pytest.raises(UsageError, match=r"a disk of 4.0 GiB is less than the image's 8.0 GiB"):
        make(all_of_them, "small", disk="4G")
    assert all_of_them.all() == []
    make(all_of_them, "enough", memory="96M", disk="8G")
    make(all_of_them, "unmeasured", image="older", memory="64M")


def test_one_of_an_image_that_does_not_exist_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    all_of_them = known(tmp_path)
    with pytest.raises(ImageMissingError, match="there is no image nope") as nothing_built:
        make(all_of_them, "a", image="nope")
    assert "image build" in nothing_built.value.hint
    name_image("nope-1")
    with pytest.raises(ImageMissingError) as similar:
        make(all_of_them, "a", image="nope")
    assert "nope-1" in similar.value.hint
    assert "boincvm image ls" in similar.value.hint
    assert all_of_them.all() == []
    make(all_of_them, "a", image="nope-1")  # damaged: `start` reports it


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("memory", "999G", "asks for 999.0 GiB of memory, and all machines on this host"),
        ("cpus", 200, "asks for 200 processors, and this host has"),
    ],
)
def test_one_larger_than_the_host_is_refused(
    option: str, value: object, expected: str, tmp_path: Path
) -> None:
    all_of_them = known(tmp_path)
    with pytest.raises(BoincvmError, match=expected):
        make(all_of_them, "large", **{option: value})
    assert all_of_them.all() == []


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


@pytest.mark.parametrize("name", ["nul", "CON", "aux.1", "com1"])
def test_a_new_one_has_a_name_that_windows_can_store(tmp_path: Path, name: str) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    with pytest.raises(UsageError, match="expected a machine's name") as caught:
        make(all_of_them, name)
    assert "not a device of Windows'" in caught.value.hint
    assert list((tmp_path / "machines").iterdir()) == []


def test_an_older_one_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(machines, "is_portable_part", lambda name: True)
        make(known(tmp_path), "nul")
    again = known(tmp_path)
    assert again.load() == []
    assert [machine.id for machine in again.all()] == ["nul"]


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
    location = make(first, "a").directory
    (location.directory / "machine.json").unlink()
    with location.held():
        (trouble,) = known(tmp_path).load()
    assert "a is running" in trouble
    assert location.disk.is_dir()


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
    location = make(first, "a").directory
    shutil.copytree(location.directory, tmp_path / "machines" / "copy")
    shutil.copytree(location.directory, tmp_path / "machines" / os.fsdecode(b"\xff"))
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
    assert found.directory.directory == location.directory
    assert tmp_path.is_dir()


# Removed; and what they had to say.


def test_one_that_is_removed_half_can_be_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[str] = []
    all_of_them = known(tmp_path, reported)
    all_of_them.load()
    machine = make(all_of_them, "a")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(shutil, "rmtree", full_disk)
        with pytest.raises(OSError, match="No space"):
            all_of_them.remove(machine)
    assert all_of_them.find("a") is machine
    all_of_them.remove(machine)
    assert all_of_them.all() == []
    assert reported == ["a", "a"]
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


async def test_a_machine_whose_disk_can_be_no_image(tmp_path: Path) -> None:
    all_of_them = known(tmp_path)
    all_of_them.load()
    source = make(all_of_them, "a")
    with pytest.raises(UsageError, match="a has not run, so it is as its image"):
        await all_of_them.make_image(source, "new")
    status = Status(image="digest", layers=("disk-1.qcow2",))
    source.set_status(status._replace(state=VmState.SAVED, saved=1))
    with pytest.raises(UsageError, match="a is saved"):
        await all_of_them.make_image(source, "new")
    source.set_status(status)
    with source.directory.held(), pytest.raises(UsageError, match="a is running"):
        await all_of_them.make_image(source, "new")
    with pytest.raises(UsageError, match="an image's name"):
        await all_of_them.make_image(source, "../new")


async def test_an_image_of_a_machine_takes_no_name_that_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --force. Machines of an image that is replaced keep what it was."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    made: list[str] = []

    def image_of(_directory: object, _definition: object, name: str) -> str:
        made.append(name)
        return "digest"

    monkeypatch.setattr(machines, "_image_of", image_of)
    names = ImageStore().root / "names"
    names.mkdir(parents=True)
    for name in ("taken", "own"):
        (names / name).touch()
    all_of_them = known(tmp_path)
    all_of_them.load()
    source = make(all_of_them, "a", image="own")
    source.set_status(Status(image="digest", layers=("disk-1.qcow2",), was_shut_down=True))
    for name in ("taken", "own"):
        with pytest.raises(UsageError, match=f"there is an image {name} already"):
            await all_of_them.make_image(source, name)
    assert made == []
    await all_of_them.make_image(source, "taken", force=True)
    await all_of_them.make_image(source, "own", force=True)
    await all_of_them.make_image(source, "new")
    assert made == ["taken", "own", "new"]


async def test_an_image_is_made_only_of_a_machine_that_was_shut_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a journal, a file system that was not written in full may be broken."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(machines, "_image_of", lambda *_: "digest")
    name_image()
    all_of_them = known(tmp_path)
    all_of_them.load()
    source = make(all_of_them, "a")
    orderly = Status(image="digest", layers=("disk-1.qcow2",), was_shut_down=True)
    for status in (
        orderly._replace(was_shut_down=False),  # boincvm stop --now
        orderly._replace(state=VmState.ABORTED, was_shut_down=False),
    ):
        source.set_status(status)
        with pytest.raises(UsageError, match="a was not shut down by boincvm stop") as refused:
            await all_of_them.make_image(source, "new")
        assert "--now" not in refused.value.hint
        assert "boincvm start a, boincvm stop a" in refused.value.hint
    source.set_status(orderly._replace(state=VmState.SAVED, saved=1))
    all_of_them.discard(source)
    with pytest.raises(UsageError, match="a was not shut down by boincvm stop"):
        await all_of_them.make_image(source, "new")
    source.set_status(orderly)
    with source.directory.held(), pytest.raises(UsageError, match="a is running") as refused:
        await all_of_them.make_image(source, "new")
    assert refused.value.hint == "shut it down first: boincvm stop a"
    assert await all_of_them.make_image(source, "new") == "digest"
    (source.directory.disk / "disk-1.qcow2").touch()
    clone = await all_of_them.clone(source, "b")
    assert await all_of_them.make_image(clone, "new") == "digest"


async def test_an_image_stays_as_long_as_a_machine_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    store = ImageStore()
    digest = publish(store, content=b"old")
    content = store.root / "objects" / digest
    first = known(tmp_path)
    first.load()
    source = make(first, "a", image="base")
    (source.directory.disk / "disk-1.qcow2").touch()
    # Its shim has come up, but of an older version: it has told the store nothing.
    source.set_status(Status(image=digest, layers=("disk-1.qcow2",), was_shut_down=True))
    all_of_them = known(tmp_path)
    assert all_of_them.load() == []
    source = all_of_them.required("a")
    publish(store, content=b"new")
    clone = await all_of_them.clone(source, "b")
    monkeypatch.setattr(
        "boincvm.image.from_disk.image_of_disk", lambda _store, _name, image, *_: image
    )
    assert await all_of_them.make_image(source, "made") == digest
    all_of_them.remove(source)
    await all_of_them.release_image(source)
    assert store.owners() == {digest: ["b"]}
    publish(store, content=b"newest")
    assert content.exists()
    all_of_them.remove(clone)
    await all_of_them.release_image(clone)
    assert not content.exists()


async def test_a_machine_is_held_until_its_image_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who asked for it may be gone before that."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    begun, may_end = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def image_of(*_: object) -> str:
        threads.append(threading.current_thread())
        begun.set()
        assert may_end.wait(20)
        return "digest"

    monkeypatch.setattr(machines, "_image_of", image_of)
    name_image()
    all_of_them = known(tmp_path)
    all_of_them.load()
    source = make(all_of_them, "a")
    source.set_status(Status(image="digest", layers=("disk-1.qcow2",), was_shut_down=True))
    making = asyncio.ensure_future(all_of_them.make_image(source, "new"))
    try:
        assert await asyncio.to_thread(begun.wait, 20)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert source.directory.is_locked()
    finally:
        may_end.set()
    await asyncio.to_thread(threads[0].join, 20)
    assert not source.directory.is_locked()
