"""The definition, the disks' files and the saved states that VMware is given."""

import json
import subprocess
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError, UsageError
from boincvm.host.resources import processor_name
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import Checkpoint, FileSeal, MachineSpec
from boincvm.hypervisor.vmware import vmdk
from boincvm.hypervisor.vmware.definition import (
    DISK_FILE,
    SAVED_STATE,
    Definition,
    definition,
    parse,
)
from boincvm.hypervisor.vmware.disks import Disks, check_layer_name, free_layer
from boincvm.hypervisor.vmware.saved import check_identity, compare, read_saved_state
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
    said = a_definition(spec)
    assert (said["memsize"], said["numvcpus"]) == ("256", "2")
    assert said[DISK_FILE.lower()] == '/a "b" |c, ü/disk.vmdk'
    assert said["ethernet0.present"] == "FALSE"
    assert said["remotedisplay.vnc.enabled"] == "FALSE"
    assert said["isolation.tools.hgfs.disable"] == "TRUE"
    assert said["msg.autoanswer"] == "TRUE"
    for line in range(3):
        assert said[f"serial{line}.filetype"] == "pipe"
        assert said[f"serial{line}.pipe.endpoint"] == "client"
        assert said[f"serial{line}.filename"] == f'/a "b" |c, ü/{line}'
    assert SAVED_STATE.lower() not in said


def test_a_definition_of_a_machine_that_goes_on(spec: MachineSpec) -> None:
    said = a_definition(spec, state=Path("/x/one.vmss"))
    assert said[SAVED_STATE.lower()] == "/x/one.vmss"
    assert said[f"{SAVED_STATE.lower()}.readonly"] == "TRUE"
    assert said["ide1:0.startconnected"] == "FALSE"


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
    said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert [one["format"] for one in said] == ["vmdk", "vmdk"]
    assert [one["virtual-size"] for one in said] == [SIZE, SIZE]
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
        (b"parentFileNameHint", b"parentFileNameXXXX", "lies over no other disk"),
        (b"monolithicSparse", b"twoGbMaxExtentFl", "no disk in one file"),
        (b"SPARSE", b"FLAT  ", "names another file as its content"),
        (b"KDMV", b"COWD", "no VMDK file with grains"),
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
    with pytest.raises(HypervisorError, match="no layer"):
        check_layer_name(name)


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
    check_identity(saved, HERE, "ws")


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1.17.0"},
        {"version": 17},
        {"product": None},
        {"processor": 7},
        {"state": "../x.vmsn"},
        {"state": "x.vmx"},
        {"memory": "/etc/passwd"},
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
    with pytest.raises(HypervisorError, match="cannot go on here"):
        check_identity(saved, HERE, "ws")


def test_a_disk_that_is_none(spec: MachineSpec) -> None:
    spec.root.write_bytes(b"short")
    with pytest.raises(HypervisorError, match="is not a disk"):
        Disks(spec, spec.directory, ())
    assert issubclass(qcow2.DiskRefusedError, ValueError)
