"""What the driver for User-mode Linux refuses before anything is created."""

from pathlib import Path

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.uml.driver import UmlDriver
from boincvm.hypervisor.uml.kernel import UmlKernel

KERNEL = UmlKernel(Path("/nowhere"), is_own=True)


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    nowhere = tmp_path / "none"
    return MachineSpec(tmp_path, nowhere, nowhere, nowhere, memory=256 << 20, cpus=1)


async def test_a_disk_of_another_driver(spec: MachineSpec) -> None:
    machine = UmlDriver(KERNEL).machine(spec._replace(layers=("disk-000000.qcow2",)))
    with pytest.raises(HypervisorError, match="was not made by User-mode Linux"):
        await machine.create()


async def test_a_root_disk_that_is_none(spec: MachineSpec) -> None:
    spec.root.write_bytes(b"no disk at all")
    for disk_format in ("qcow2", "raw"):
        machine = UmlDriver(KERNEL).machine(spec._replace(root_format=disk_format))  # type: ignore[arg-type]
        with pytest.raises(HypervisorError, match="the machine's disk is refused"):
            await machine.create()
        assert list(spec.directory.iterdir()) == [spec.root]
