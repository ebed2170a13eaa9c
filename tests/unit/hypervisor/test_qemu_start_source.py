"""How a QEMU process starts: from a boot, a checkpoint, or a copy of a golden snapshot."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError, UsageError
from boincvm.host import memory_files
from boincvm.hypervisor.contract import Checkpoint, FileSeal, MachineSpec
from boincvm.hypervisor.disks import TRANSFER_DISK
from boincvm.hypervisor.qcow2 import check_disk, write_overlay
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu import start_source
from boincvm.hypervisor.qemu.launch import Launch, Memory
from boincvm.hypervisor.qemu.start_source import (
    FIRST_LAYER,
    GOLDEN_MEMORY,
    GOLDEN_STATE,
    Boot,
    Cloned,
    Restored,
    StartSource,
    free_layer,
    next_layer,
)
from support.snapshots import DISK, MACHINE, MEMORY, MIB, TABLE, make_job

SIZE = 8 << 30
"""Of the image's disk."""


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    """Return a machine of an image, whose directory is still empty."""
    (tmp_path / "machine").mkdir()
    write_overlay(tmp_path / "root.qcow2", SIZE)
    files = (tmp_path / name for name in ("kernel", "initrd", "root.qcow2"))
    return MachineSpec(tmp_path / "machine", *files, memory=64 * MIB, cpus=1)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """Make the files of a golden snapshot."""
    directory = tmp_path / "golden"
    directory.mkdir()
    write_overlay(directory / FIRST_LAYER, SIZE)
    with (directory / GOLDEN_MEMORY).open("wb") as memory:
        memory.seek(MIB)
        memory.write(b"in the middle")
        memory.truncate(64 * MIB)
    (directory / GOLDEN_STATE).write_bytes(b"devices")
    return directory


def files_of(spec: MachineSpec) -> set[str]:
    return {path.name for path in spec.directory.iterdir()}


def words_of(spec: MachineSpec, launch: Launch, option: str) -> list[str]:
    """Return what follows `option` in QEMU's command line."""
    words = qemu_command.machine_command(
        spec, "tcg", launch, qmp="fd=3", link="fd=4", console="fd=5"
    )
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


# A boot.


def test_a_boot_has_a_new_layer_over_the_image(spec: MachineSpec) -> None:
    boot = Boot()
    launch = boot.prepare(spec)
    assert launch == Launch((FIRST_LAYER,))
    assert (launch.memory, launch.incoming, launch.stands_still) == (Memory.OWN, "", False)
    assert files_of(spec) == {FIRST_LAYER, TRANSFER_DISK}
    assert check_disk(spec.directory / FIRST_LAYER) == SIZE
    assert boot.descriptors == ()
    assert words_of(spec, launch, "-kernel") == [str(spec.kernel)]
    assert words_of(spec, launch, "-incoming") == []


def test_a_boot_of_a_machine_that_has_run_takes_its_layers(spec: MachineSpec) -> None:
    layers = ("disk-000000.qcow2", "disk-000007.qcow2")
    assert Boot().prepare(spec._replace(layers=layers)) == Launch(layers)
    assert files_of(spec) == {TRANSFER_DISK}


@pytest.mark.parametrize("name", ["../disk-000000.qcow2", "/dev/sda", "disk-1.qcow2", ""])
def test_a_boot_refuses_layers_that_are_none(spec: MachineSpec, name: str) -> None:
    with pytest.raises(HypervisorError, match="is not a layer"):
        Boot().prepare(spec._replace(layers=(name,)))


def test_a_boot_for_copies_has_its_memory_in_a_file(spec: MachineSpec) -> None:
    launch = Boot(golden=True).prepare(spec)
    memory = str(spec.directory / GOLDEN_MEMORY)
    assert (launch.memory, launch.memory_file) == (Memory.SHARED, memory)


def test_a_disk_grows_and_does_not_shrink(spec: MachineSpec) -> None:
    with pytest.raises(UsageError, match="less than the image's"):
        Boot().prepare(spec._replace(disk_size=SIZE - 1))
    Boot().prepare(spec._replace(disk_size=SIZE + MIB))
    assert check_disk(spec.directory / FIRST_LAYER) == SIZE + MIB


# A checkpoint.


@pytest.fixture
def saved(spec: MachineSpec, tmp_path: Path) -> MachineSpec:
    """Return a machine whose directory has a checkpoint of it."""
    return spec._replace(directory=make_job(tmp_path / "job") / MACHINE)


def checkpoint(saved: MachineSpec, **changes: object) -> Checkpoint:
    files = {name: FileSeal(1, "0" * 64) for name in (MEMORY, DISK)}
    return Checkpoint(1, files, {**TABLE, **changes})


def test_a_restored_one_stands_still_over_the_layers_that_it_had(saved: MachineSpec) -> None:
    source = Restored(checkpoint(saved))
    try:
        launch = source.prepare(saved)
        assert launch.layers == (DISK, "disk-000002.qcow2")
        assert check_disk(saved.directory / launch.layers[-1]) == SIZE
        assert (launch.incoming, launch.stands_still) == ("defer", True)
        assert (launch.memory, launch.machine) == (Memory.OWN, "pc-q35-7.2")
        assert TRANSFER_DISK in files_of(saved)
        assert words_of(saved, launch, "-incoming") == ["defer"]
        assert words_of(saved, launch, "-kernel") == []
        (stream,) = source.descriptors
        os.set_blocking(stream, False)
        with pytest.raises(BlockingIOError):  # nobody may see an end before it begins
            os.read(stream, 1)
    finally:
        source.close()
    assert source.descriptors == (-1,)


async def test_a_machine_type_begins_the_state_also_where_it_was_saved_without(
    saved: MachineSpec,
) -> None:
    """As by an older boincvm, of a copy; newer QEMUs abort where they are told to do without."""
    monitor, source = Loading(), Restored(checkpoint(saved))
    try:
        launch = source.prepare(saved)
        assert words_of(saved, launch, "-global") == []
        await source.load(monitor)  # type: ignore[arg-type]
    finally:
        source.close()
    assert monitor.stream.startswith(b"QEVM\0\0\0\x03\x07\0\0\0\x0apc-q35-7.2\x01")


class Loading:
    """A monitor of a QEMU that reads its state."""

    def __init__(self) -> None:
        self.stream = b""

    async def execute(self, command: str, arguments: dict[str, object]) -> None:
        if command == "migrate-incoming":
            self._stream = os.dup(int(str(arguments["uri"]).removeprefix("fd:")))

    @contextmanager
    def events(self, *_: str) -> Iterator["Loading"]:
        yield self

    async def get(self) -> dict[str, object]:
        self.stream = os.read(self._stream, 1 << 16)
        os.close(self._stream)
        return {"data": {"status": "completed"}}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"type": "microvm"}, "type is invalid"),
        ({"type": "pc-q35-7.2,accel=kvm"}, "type is invalid"),
        ({"accelerator": "hax"}, "accelerator is invalid"),
        ({"memory": "../memory-000001"}, "memory is invalid"),
        ({"memory": "memory-000009"}, "is not among the files"),
        ({"layers": []}, "does not list its layers"),
        ({"layers": [DISK, DISK]}, "is named twice"),
        ({"layers": ["disk-000009.qcow2"]}, "is not among the files"),
    ],
)
def test_a_manifest_that_says_what_it_may_not(
    saved: MachineSpec, changes: dict[str, object], complaint: str
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(HypervisorError, match=complaint):
        Restored(checkpoint(saved, **changes))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_memory_that_cannot_be_loaded_is_reported_before_qemu_starts(
    saved: MachineSpec, damage: str
) -> None:
    path = saved.directory / MEMORY
    if damage == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 1)
    source = Restored(checkpoint(saved))
    try:
        with pytest.raises(HypervisorError, match="the saved memory cannot be loaded"):
            source.prepare(saved)
    finally:
        source.close()
    assert not (saved.directory / "disk-000002.qcow2").exists()


# A copy.


def test_an_ephemeral_copy_maps_the_memory_and_leaves_the_disk_where_it_is(
    spec: MachineSpec, golden: Path
) -> None:
    spec = spec._replace(ephemeral=True)
    source = Cloned(golden)
    try:
        launch = source.prepare(spec)
        assert launch.layers == (str(golden / FIRST_LAYER), "disk-000001.qcow2")
        assert (launch.memory, launch.memory_file) == (Memory.CLONE, str(golden / GOLDEN_MEMORY))
        assert files_of(spec) == {"disk-000001.qcow2", TRANSFER_DISK}
        (state,) = source.descriptors
        assert os.read(state, 100) == b"devices"
        assert launch.incoming == f"fd:{state}"
        assert not launch.has_memory
        assert not launch.stands_still
        assert words_of(spec, launch, "-global") == []
    finally:
        source.close()
    assert source.descriptors == ()


def test_a_copy_that_may_outlive_its_snapshot_has_all_of_the_disk(
    spec: MachineSpec, golden: Path
) -> None:
    source = Cloned(golden)
    try:
        launch = source.prepare(spec)
    finally:
        source.close()
    assert launch.layers == (FIRST_LAYER, "disk-000001.qcow2")
    assert files_of(spec) == {*launch.layers, TRANSFER_DISK}
    assert check_disk(spec.directory / FIRST_LAYER) == SIZE


def test_a_copy_that_gives_memory_back_has_its_own(spec: MachineSpec, golden: Path) -> None:
    """QEMU would punch holes into the file that all others have mapped."""
    source = Cloned(golden)
    try:
        launch = source.prepare(spec._replace(balloon=True))
        state, memory = source.descriptors
        assert launch.incoming == f"fd:{state}"
        assert (launch.memory, launch.memory_file) == (Memory.SHARED, f"/dev/fd/{memory}")
        assert content(memory) == (golden / GOLDEN_MEMORY).read_bytes()
        os.pwrite(memory, b"changed", 0)
        assert (golden / GOLDEN_MEMORY).read_bytes()[:7] == bytes(7)
    finally:
        source.close()


@pytest.mark.parametrize(
    ("size", "is_pipe"), [(7, True), (206_585, True), (1 << 20, True), ((1 << 20) + 1, False)]
)
def test_the_state_comes_through_a_pipe(
    spec: MachineSpec, golden: Path, size: int, is_pipe: bool
) -> None:
    """QEMU 11 takes no file; it is all in the pipe before QEMU begins, and nobody waits."""
    state = os.urandom(size)
    (golden / GOLDEN_STATE).write_bytes(state)
    before = len(os.listdir("/proc/self/fd"))
    source = Cloned(golden)
    try:
        source.prepare(spec)
        (descriptor,) = source.descriptors
        assert stat.S_ISFIFO(os.fstat(descriptor).st_mode) is is_pipe
        with open(descriptor, "rb", closefd=False) as stream:
            assert stream.read() == state
    finally:
        source.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_no_pipe_is_as_large_it_is_the_file(
    spec: MachineSpec, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    (golden / GOLDEN_STATE).write_bytes(bytes(1 << 17))
    monkeypatch.setattr(start_source, "widen", refuse)
    source = Cloned(golden)
    try:
        source.prepare(spec)
        (descriptor,) = source.descriptors
        assert os.fstat(descriptor).st_size == 1 << 17
    finally:
        source.close()


def test_a_long_state_is_the_file_whatever_a_pipe_holds(
    spec: MachineSpec, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a user with more rights than others; a pipe gets no part of it."""
    (golden / GOLDEN_STATE).write_bytes(bytes(3 << 20))
    monkeypatch.setattr(start_source, "widen", lambda *_: None)
    monkeypatch.setattr(start_source, "capacity", lambda _: 1 << 24)
    source = Cloned(golden)
    try:
        source.prepare(spec)
        (descriptor,) = source.descriptors
        assert os.fstat(descriptor).st_size == 3 << 20
    finally:
        source.close()


@pytest.mark.parametrize("name", [FIRST_LAYER, GOLDEN_STATE])
def test_a_snapshot_that_has_gone_meanwhile(spec: MachineSpec, golden: Path, name: str) -> None:
    """And no descriptor of it is left."""
    (golden / name).unlink()
    source = Cloned(golden)
    with pytest.raises(HypervisorError, match="No such file"):
        source.prepare(spec)
    assert source.descriptors == ()


def test_holes_stay_holes(golden: Path) -> None:
    copy = memory_files.copy(golden / GOLDEN_MEMORY, "copy")
    try:
        assert os.fstat(copy).st_size == 64 * MIB
        assert os.fstat(copy).st_blocks * 512 <= MIB
    finally:
        os.close(copy)


# Names.


def test_names_of_layers_go_upwards(spec: MachineSpec) -> None:
    assert free_layer(spec.directory) == FIRST_LAYER
    (spec.directory / "disk-000041.qcow2").touch()
    assert free_layer(spec.directory) == "disk-000042.qcow2" == next_layer("disk-000041.qcow2")


@pytest.mark.parametrize("kind", ["boot", "restored", "cloned"])
def test_to_close_twice_is_harmless(saved: MachineSpec, golden: Path, kind: str) -> None:
    sources: dict[str, StartSource] = {
        "boot": Boot(), "cloned": Cloned(golden), "restored": Restored(checkpoint(saved))
    }  # fmt: skip
    for source in sources.values():
        source.close()
    before = len(os.listdir("/proc/self/fd"))
    sources[kind].close()
    assert len(os.listdir("/proc/self/fd")) == before
