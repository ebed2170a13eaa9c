"""What the driver for User-mode Linux refuses before anything is made."""

from pathlib import Path

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import MachineSpec, MachineState
from boincvm.hypervisor.uml import driver as uml
from boincvm.hypervisor.uml.driver import UmlDriver


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    nowhere = tmp_path / "none"
    return MachineSpec(tmp_path, nowhere, nowhere, nowhere, memory=256 << 20, cpus=1)


async def test_memory_that_the_host_has_not(
    spec: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container, /dev/shm often has 64 MiB."""
    monkeypatch.setattr(uml, "free_space", lambda _: 64 << 20)
    machine = UmlDriver().machine(spec)
    with pytest.raises(
        HypervisorError, match=r"memory of 256\.0 MiB lies in .*, where 64\.0 MiB are"
    ):
        await machine.create()
    assert machine.state is MachineState.DEFINED


async def test_a_disk_of_another_driver(spec: MachineSpec) -> None:
    machine = UmlDriver().machine(spec._replace(layers=("disk-000000.qcow2",)))
    with pytest.raises(HypervisorError, match="was not made by User-mode Linux"):
        await machine.create()


async def test_a_root_disk_that_is_none(spec: MachineSpec) -> None:
    spec.root.write_bytes(b"no disk at all")
    for disk_format in ("qcow2", "raw"):
        machine = UmlDriver().machine(spec._replace(root_format=disk_format))  # type: ignore[arg-type]
        with pytest.raises(HypervisorError, match="the machine's disk is refused"):
            await machine.create()
        assert list(spec.directory.iterdir()) == [spec.root]
