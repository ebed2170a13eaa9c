"""Clones of machines of this host."""

import asyncio
from pathlib import Path

import pytest

from boincvm.controller.machines import machines
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import (
    HostDiskFullError,
    HostError,
    UsageError,
)
from boincvm.shim.machine_directory import MachineDirectory, Status
from support.controller.machines import full_disk, known, make


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
