"""QEMU's command line: file names cannot inject options, and nothing is probed."""

import json
from pathlib import Path

import pytest

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.kernel_arguments import JOURNAL
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.hypervisor.qemu.command import layer_options, machine_command, read_only_layer
from boincvm.hypervisor.qemu.launch import Launch, Memory
from boincvm.job.model import PortForward

ODD = "/m,file=x:y=z {}'\"%"


@pytest.fixture
def spec() -> MachineSpec:
    files = (Path(f"{ODD}/{name}") for name in ("kernel", "initrd", "root.qcow2"))
    return MachineSpec(Path(ODD), *files, memory=256 << 20, cpus=2, network=True, display=True)


def command(spec: MachineSpec, launch: Launch) -> list[str]:
    return machine_command(spec, "tcg", launch, qmp="fd=3", link="fd=4", console="fd=5")


LAYERS = ("disk-000001.qcow2", "disk-000002.qcow2")


@pytest.mark.parametrize(
    "launch",
    [
        Launch(LAYERS),
        Launch(LAYERS, Memory.SHARED, f"{ODD}/memory"),
        Launch((f"{ODD}/golden/disk-000000.qcow2", LAYERS[0]), Memory.CLONE, f"{ODD}/memory"),
        Launch(LAYERS, incoming="defer", machine="pc-q35-7.2"),
    ],
)
def test_a_name_with_commas_is_one_name(spec: MachineSpec, launch: Launch) -> None:
    words = command(spec, launch)
    whole = {words[at + 1] for at, word in enumerate(words) if word in ("-kernel", "-initrd")}
    named = [word for word in words if ODD[:3] in word and word not in whole]
    assert len(named) >= len(launch.layers) + 2
    for word in named:
        assert ODD in json.dumps(list(leaves(json.loads(word))), ensure_ascii=False).replace(
            '\\"', '"'
        )


def leaves(value: object) -> list[object]:
    """Return everything in a document but its keys."""
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    return [value]


def test_a_root_disk_on_demand_is_read_from_its_socket_and_no_file(spec: MachineSpec) -> None:
    words = machine_command(
        spec, "tcg", Launch(LAYERS), qmp="fd=3", link="fd=4", console="fd=5", root=6
    )
    assert not [word for word in words if "root.qcow2" in word]
    nodes = [json.loads(words[at + 1]) for at, word in enumerate(words) if word == "-blockdev"]
    assert nodes[0] == {
        "driver": "qcow2",
        "node-name": "image",
        "read-only": True,
        "backing": None,
        "file": {
            "driver": "nbd",
            "server": {"type": "fd", "str": "6"},
            "export": "root",
            "read-only": True,
        },
    }


def test_a_graphics_card_has_a_port_of_its_own(spec: MachineSpec) -> None:
    words = command(spec._replace(gpu="0000:01:00.0"), Launch(LAYERS))
    at = words.index("vfio-pci,host=0000:01:00.0,bus=gpu-port")
    assert words[at - 3 : at] == ["-device", "pcie-root-port,id=gpu-port,chassis=1", "-device"]
    assert not [word for word in command(spec, Launch(LAYERS)) if "vfio" in word]


def test_ports_lead_from_the_loopback_address_alone(spec: MachineSpec) -> None:
    forwards = (PortForward(8080, 80), PortForward(2222, 22))
    assert "user,id=net" in command(spec, Launch(LAYERS))
    words = command(spec._replace(forwards=forwards), Launch(LAYERS))
    assert (
        "user,id=net,hostfwd=tcp:127.0.0.1:8080-10.0.2.15:80"
        ",hostfwd=tcp:127.0.0.1:2222-10.0.2.15:22"
    ) in words
    words = command(spec._replace(forwards=forwards, network=False), Launch(LAYERS))
    assert not [word for word in words if "hostfwd" in word]


def test_the_format_of_each_disk_is_said_and_what_lies_beneath_it(spec: MachineSpec) -> None:
    words = command(spec, Launch(LAYERS))
    assert "-drive" not in words
    nodes = [json.loads(words[at + 1]) for at, word in enumerate(words) if word == "-blockdev"]
    reported = {node["node-name"]: (node["driver"], node.get("backing", "-")) for node in nodes}
    assert reported == {
        "image": ("qcow2", None),
        "disk-000001": ("qcow2", "image"),
        "disk-000002": ("qcow2", "disk-000001"),
        "transfer-disk": ("raw", "-"),
    }
    assert {node["file"]["driver"] for node in nodes} == {"file"}


@pytest.mark.parametrize("durable", [False, True])
def test_only_a_durable_disk_waits_for_the_host_s(spec: MachineSpec, *, durable: bool) -> None:
    words = command(spec._replace(durable=durable), Launch(LAYERS))
    nodes = [json.loads(words[at + 1]) for at, word in enumerate(words) if word == "-blockdev"]
    (top,) = [node for node in nodes if node["node-name"] == "disk-000002"]
    assert top["cache"] == top["file"]["cache"] == {"no-flush": not durable}


def test_so_it_is_for_disks_that_come_later() -> None:
    for node in (
        layer_options(Path("/d/disk-1.qcow2"), None, durable=True),
        read_only_layer(Path("/x"), "n", "b"),
    ):
        assert node["driver"] == "qcow2"
        assert "backing" in node
        assert node["file"]["driver"] == "file"  # type: ignore[index]


@pytest.mark.parametrize("directory", ["share", "share/qemu"])
def test_firmware_beside_the_program_is_used_if_it_is_whole(
    spec: MachineSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: str
) -> None:
    monkeypatch.setattr(qemu_command, "find_program", lambda name: str(tmp_path / name))
    assert "-L" not in command(spec, Launch(LAYERS))
    firmware = tmp_path / directory
    firmware.mkdir(parents=True)
    (firmware / "bios-256k.bin").touch()
    # Without the other part QEMU would look for a disk to boot, for ever.
    with pytest.raises(HypervisorMissingError, match=r"pvh\.bin"):
        command(spec, Launch(LAYERS))
    (firmware / "pvh.bin").touch()
    assert command(spec, Launch(LAYERS))[:3] == [
        str(tmp_path / "qemu-system-x86_64"),
        "-L",
        str(firmware),
    ]


def test_a_disk_that_outlives_the_machine_has_its_journal(spec: MachineSpec) -> None:
    assert JOURNAL in arguments_of_kernel(spec._replace(durable=True))
    assert JOURNAL not in arguments_of_kernel(spec)


def arguments_of_kernel(spec: MachineSpec) -> list[str]:
    words = command(spec, Launch(LAYERS))
    return words[words.index("-append") + 1].split()
