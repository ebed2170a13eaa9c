"""The definition, the disk files and the saved states that VMware gets."""

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from boincvm.errors import HostDiskFullError, HypervisorError, UsageError
from boincvm.host.resources import processor_name
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import Checkpoint, FileSeal, MachineSpec
from boincvm.hypervisor.saved_state import check_findings, check_layer
from boincvm.hypervisor.vmware import vmdk
from boincvm.hypervisor.vmware.definition import (
    DISK_FILE,
    SAVED_STATE,
    Definition,
    definition,
    parse,
)
from boincvm.hypervisor.vmware.disks import LAYER, MANY_LAYERS, Disks, free_layer
from boincvm.hypervisor.vmware.saved import compare, read_saved_state
from boincvm.hypervisor.vmware.vmrun import Version

SIZE = 3 << 20
HERE = Version(1, 17, 0, 22583795)
TABLE: dict[str, object] = {
    "version": "1.17.0.22583795",
    "product": "ws",
    "processor": processor_name(),
    "state": "boincvm-0badcafe-Snapshot1.vmsn",
    "memory": "boincvm-0badcafe-Snapshot1.vmem",
    "layers": ["disk000001.vmdk"],
}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MachineSpec:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    directory = tmp_path / "machine"
    directory.mkdir()
    root = tmp_path / "root.raw"
    root.write_bytes(b"the image's disk".ljust(SIZE, b"\0"))
    return MachineSpec(
        directory, Path("kernel"), Path("initrd"), root, 256 << 20, 2, root_format="raw"
    )


def a_definition(spec: MachineSpec, *, state: Path | None = None) -> dict[str, str]:
    here = Path('/a "b" |c, ü')
    sockets = (here / "0", here / "1", here / "2")
    machine = Definition("boincvm-1", here, here / "disk.vmdk", here / "boot.iso", sockets, state)
    text = definition(spec, machine)
    assert all(line.count('"') == 2 for line in text.splitlines())
    return parse(text)


def test_a_definition(spec: MachineSpec) -> None:
    output = a_definition(spec)
    assert (output["memsize"], output["numvcpus"]) == ("256", "2")
    assert output[DISK_FILE.lower()] == '/a "b" |c, ü/disk.vmdk'
    assert output["ethernet0.present"] == "FALSE"
    assert output["remotedisplay.vnc.enabled"] == "FALSE"
    assert output["isolation.tools.hgfs.disable"] == "TRUE"
    assert output["msg.autoanswer"] == "TRUE"
    for line in range(3):
        assert output[f"serial{line}.filetype"] == "pipe"
        assert output[f"serial{line}.pipe.endpoint"] == "client"
        assert output[f"serial{line}.filename"] == f'/a "b" |c, ü/{line}'
    assert SAVED_STATE.lower() not in output


def test_a_definition_of_a_machine_that_goes_on(spec: MachineSpec) -> None:
    output = a_definition(spec, state=Path("/x/one.vmss"))
    assert output[SAVED_STATE.lower()] == "/x/one.vmss"
    assert output[f"{SAVED_STATE.lower()}.readonly"] == "TRUE"
    assert output["ide1:0.startconnected"] == "FALSE"


def test_memory_that_vmware_does_not_have(spec: MachineSpec) -> None:
    with pytest.raises(UsageError, match="steps of 4 MiB"):
        a_definition(spec._replace(memory=(256 << 20) + (1 << 20)))


@pytest.mark.parametrize("text", ["", "x", '"', 'a="b|"', 'a = "|zz|"', "a = b", 'a = "b" c'])
def test_a_definition_that_is_none(text: str) -> None:
    assert set(parse(text)) <= {"a"}


def test_qemu_reads_the_layers(spec: MachineSpec) -> None:
    disks = Disks(spec, spec.directory, ())
    assert disks.layers == ("disk000001.vmdk",)
    command = ["qemu-img", "info", "--output=json", "--backing-chain", str(disks.top)]
    output = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert [one["format"] for one in output] == ["vmdk", "vmdk"]
    assert [one["virtual-size"] for one in output] == [SIZE, SIZE]
    command = ["qemu-io", "-r", "-c", "read -P 0x74 0 1", "-f", "vmdk", str(disks.top)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "verification failed" not in done.stdout
    subprocess.run(["qemu-img", "check", "-f", "vmdk", str(disks.top)], check=True)


def test_a_layer_that_was_written_to_is_taken_again(spec: MachineSpec) -> None:
    disks = Disks(spec, spec.directory, ())
    command = ["qemu-io", "-c", "write -P 7 1M 64k", "-f", "vmdk", str(disks.top)]
    subprocess.run(command, check=True, capture_output=True)
    again = Disks(spec, spec.directory, disks.layers)
    assert again.layers == disks.layers
    frozen = Disks(spec, spec.directory, disks.layers, are_frozen=True)
    assert frozen.layers == ("disk000001.vmdk", "disk000002.vmdk")
    command = ["qemu-io", "-r", "-c", "read -P 7 1M 64k", "-f", "vmdk", str(frozen.top)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "verification failed" not in done.stdout


def write(layer: Path, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", *words, "-f", "vmdk", str(layer)], check=True, capture_output=True)


def content(layer: Path, copy: Path) -> bytes:
    """Return what QEMU reads from the disk with that layer on top."""
    command = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(layer), str(copy)]
    subprocess.run(command, check=True)
    return copy.read_bytes()


def test_many_layers_are_merged_into_one(spec: MachineSpec, tmp_path: Path) -> None:
    """The disk is unchanged, and so are the files that checkpoints may need."""
    big = spec._replace(disk_size=SIZE + (64 << 20))  # of more than one grain table
    disks = Disks(big, spec.directory, ())
    for number in range(MANY_LAYERS - 1):
        write(disks.top, f"write -P {number + 1} {number * 100}k 130k", "write -P 99 66M 1k")
        assert len(disks.layers) == number + 1
        disks = Disks(big, spec.directory, disks.layers, are_frozen=True)
    write(disks.top, "write -P 98 66M 512", "write -P 0 100k 64k")
    layers = {name: (spec.directory / name).read_bytes() for name in disks.layers}
    before = content(disks.top, tmp_path / "before")
    assert before[66 << 20 : (66 << 20) + 1024] == bytes([98]) * 512 + bytes([99]) * 512
    after = Disks(big, spec.directory, disks.layers, are_frozen=True)
    assert len(after.layers) == 2
    assert set(after.layers).isdisjoint(layers)
    assert content(after.top, tmp_path / "after") == before
    assert {name: (spec.directory / name).read_bytes() for name in layers} == layers
    subprocess.run(
        ["qemu-img", "check", "-f", "vmdk", str(spec.directory / after.layers[0])], check=True
    )
    assert Disks(big, spec.directory, after.layers).layers == after.layers


@pytest.mark.parametrize("written", range(2))
def test_a_full_disk_leaves_the_layers_alone(
    spec: MachineSpec, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """The host's disk is full when so many layers were written: the merged one, and one over it."""
    monkeypatch.setattr("boincvm.hypervisor.vmware.disks.MANY_LAYERS", 2)
    below = Disks(spec, spec.directory, ())
    disks = Disks(spec, spec.directory, below.layers).over_frozen()
    layers, files = disks.layers, content_of(spec.directory)
    write_layer, calls = vmdk.write_layer, 0

    def write_until_full(path: Path, size: int, parent: str, parent_id: int) -> None:
        nonlocal calls
        write_layer(path, size, parent, parent_id)
        calls += 1
        if calls > written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(vmdk, "write_layer", write_until_full)
    with pytest.raises(HostDiskFullError):
        disks.over_frozen()
    assert calls == written + 1
    assert disks.layers == layers
    assert content_of(spec.directory) == files


def content_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_zero_grains_are_merged(spec: MachineSpec, tmp_path: Path) -> None:
    """VMware may mark a grain as zero, which then hides what is beneath."""
    below = Disks(spec, spec.directory, ())
    write(below.top, "write -P 7 0 256k")
    disks = Disks(spec, spec.directory, below.layers, are_frozen=True)
    with disks.top.open("r+b") as file:
        head = file.read(512)
        second = int.from_bytes(head[56:64], "little")
        file.seek(second * 512)
        table = int.from_bytes(file.read(4), "little")
        file.seek(table * 512 + 4)
        file.write((1).to_bytes(4, "little"))
        file.seek(4)
        file.write((2).to_bytes(4, "little") + (7).to_bytes(4, "little"))
    before = content(disks.top, tmp_path / "before")
    assert before[: 192 << 10] == (
        bytes([7]) * (64 << 10) + bytes(64 << 10) + bytes([7]) * (64 << 10)
    )
    merged = spec.directory / "disk000009.vmdk"
    vmdk.merge_layers([spec.directory / name for name in disks.layers], merged)
    assert content(merged, tmp_path / "after") == before


def test_a_layer_with_a_grain_that_is_not_in_the_file(spec: MachineSpec) -> None:
    disks = Disks(spec, spec.directory, ())
    with disks.top.open("r+b") as file:
        file.seek(56)
        second = int.from_bytes(file.read(8), "little")
        file.seek(second * 512)
        table = int.from_bytes(file.read(4), "little")
        file.seek(table * 512)
        file.write((1 << 20).to_bytes(4, "little"))
    with pytest.raises(vmdk.LayerRefusedError, match="not in the file"):
        vmdk.merge_layers([disks.top], spec.directory / "disk000009.vmdk")


def test_the_images_disk_is_shared_and_never_written_to(spec: MachineSpec) -> None:
    Disks(spec, spec.directory, ())
    base = spec.directory / "base.raw"
    assert base.stat().st_nlink == 2
    assert base.stat().st_mode & 0o222 == 0


def test_a_larger_disk_has_a_base_of_its_own(spec: MachineSpec) -> None:
    disks = Disks(spec._replace(disk_size=SIZE * 2), spec.directory, ())
    base = spec.directory / "base.raw"
    assert (base.stat().st_size, base.stat().st_nlink) == (SIZE * 2, 1)
    assert vmdk.read_layer(disks.top).size == SIZE * 2
    assert Disks(spec, spec.directory, disks.layers).layers == disks.layers


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"disk000001.vmdk"', b'"/etc/shadow.vmd"', "names another file as its content"),
        (b'"base.vmdk"', b'"/etc/base"', "lies over a disk in another directory"),
        (b'"base.vmdk"', b'"b../e.vmd"', "lies over a disk in another directory"),
        (b'"base.vmdk"', b'"other.vmd"', "does not belong over base.vmdk"),
        (b"parentCID=b01c0001", b"parentCID=b01c0002", "does not belong over base.vmdk"),
        (b"parentCID=b01c0001", b"parentCID=zzzzzzzz", "has no content id"),
        (b"parentFileNameHint", b"parentFileNameXXXX", "is not a layer over another disk"),
        (b"monolithicSparse", b"twoGbMaxExtentFl", "not a disk in a single file"),
        (b"SPARSE", b"FLAT  ", "names another file as its content"),
        (b"KDMV", b"COWD", "not a VMDK file with grains"),
    ],
)
def test_a_layer_that_is_refused(spec: MachineSpec, old: bytes, new: bytes, why: str) -> None:
    disks = Disks(spec, spec.directory, ())
    content = disks.top.read_bytes()
    assert old in content
    disks.top.write_bytes(content.replace(old, new, 1))
    with pytest.raises(HypervisorError, match=why):
        Disks(spec, spec.directory, disks.layers)


@pytest.mark.parametrize("length", [0, 4, 100, 512, 4096])
def test_a_short_layer(spec: MachineSpec, length: int) -> None:
    disks = Disks(spec, spec.directory, ())
    disks.top.write_bytes(disks.top.read_bytes()[:length])
    with pytest.raises(HypervisorError, match="the machine's disk is refused"):
        Disks(spec, spec.directory, disks.layers)


@pytest.mark.parametrize("name", ["", "x", "../x.vmdk", ".vmdk", "a/b.vmdk", "ü.vmdk", 7, None])
def test_names_that_are_no_layers(name: object) -> None:
    with pytest.raises(HypervisorError, match="not a layer"):
        check_layer(name, LAYER)


def test_new_layers_have_greater_names(tmp_path: Path) -> None:
    for name in ("disk000003.vmdk", "disk000007-000002.vmdk", "disk.vmdk", "diskx.vmdk"):
        (tmp_path / name).touch()
    assert free_layer(tmp_path) == "disk000008.vmdk"


def checkpoint(**change: object) -> Checkpoint:
    names = ("boincvm-0badcafe-Snapshot1.vmsn", "boincvm-0badcafe-Snapshot1.vmem")
    files = {name: FileSeal(1, "00") for name in (*names, "disk000001.vmdk")}
    return Checkpoint(1, files, {**TABLE, **change})


def test_a_saved_state() -> None:
    saved = read_saved_state(checkpoint())
    assert saved.table() == TABLE
    check_findings(compare(saved, HERE, "ws"))


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1.17.0"},
        {"version": 17},
        {"product": None},
        {"processor": 7},
        {"state": "../x.vmsn"},
        {"state": "x.vmx"},
        {"memory": "/nowhere/passwd"},
        {"memory": "other.vmem"},
        {"layers": []},
        {"layers": ["../x.vmdk"]},
        {"layers": ["disk000001.vmdk"] * 2},
        {"layers": ["disk000009.vmdk"]},
    ],
)
def test_a_saved_state_that_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(HypervisorError):
        read_saved_state(checkpoint(**change))


@pytest.mark.parametrize(
    "change",
    [{"version": "1.17.0.99999999"}, {"product": "fusion"}, {"processor": "another"}],
)
def test_a_state_of_another_vmware_or_processor(change: dict[str, object]) -> None:
    saved = read_saved_state(checkpoint(**change))
    assert not all(finding.is_good for finding in compare(saved, HERE, "ws"))
    with pytest.raises(HypervisorError, match="cannot resume here"):
        check_findings(compare(saved, HERE, "ws"))


def test_a_disk_that_is_none(spec: MachineSpec) -> None:
    spec.root.write_bytes(b"short")
    with pytest.raises(HypervisorError, match="is not a disk"):
        Disks(spec, spec.directory, ())
    assert issubclass(qcow2.DiskRefusedError, ValueError)
