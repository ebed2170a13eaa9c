"""The machines of this host: found again, removed; their logs."""

import os
import shutil
from pathlib import Path

import pytest

from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import (
    BoincvmError,
    HostError,
    UsageError,
)
from support.controller.machines import full_disk, known, make


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
