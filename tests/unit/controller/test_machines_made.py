"""The machines of this host that are created, and those that cannot be."""

from pathlib import Path

import pytest

from boincvm.controller.machines import machines
from boincvm.errors import (
    BoincvmError,
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
from boincvm.shim.machine_directory import MachineDirectory
from support.controller.machines import full_disk, known, make
from support.controller.named_image import name_image


def test_a_script_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the first-boot script has 65538 bytes"):
        make(known(tmp_path), "a", first_boot="é" * (machines.LONGEST_SCRIPT // 2 + 1))


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
