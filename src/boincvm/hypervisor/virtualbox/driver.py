"""The VirtualBox driver."""

import asyncio
import subprocess
from pathlib import Path

from boincvm.errors import HypervisorMissingError
from boincvm.host.programs import run_quickly
from boincvm.host.resources import processor_name
from boincvm.hypervisor.contract import Checkpoint, Finding, MachineSpec
from boincvm.hypervisor.saved_state import check_findings
from boincvm.hypervisor.virtualbox import command
from boincvm.hypervisor.virtualbox.installation import (
    DEVICE,
    INSTALL_HINT,
    MANAGE,
    OLDEST,
    program,
)
from boincvm.hypervisor.virtualbox.machine import Source, VirtualBoxMachine, source_of
from boincvm.hypervisor.virtualbox.nvme import check_nvme
from boincvm.hypervisor.virtualbox.saved import (
    compare,
    read_golden,
    read_saved_state,
)
from boincvm.hypervisor.virtualbox.vboxmanage import Version, parse_version


class VirtualBoxDriver:
    """Makes machines on VirtualBox."""

    name = "virtualbox"
    has_firmware = True
    most_cpus: int | None = command.MOST_CPUS

    def __init__(self, version: Version) -> None:
        self.version = version

    @property
    def saved_machines(self) -> "VirtualBoxDriver":
        return self

    @property
    def golden_snapshots(self) -> "GoldenSnapshots":
        return GoldenSnapshots(self.version)

    def machine(self, spec: MachineSpec) -> VirtualBoxMachine:
        return VirtualBoxMachine(spec, self.version)

    def restore(self, spec: MachineSpec, checkpoint: Checkpoint) -> VirtualBoxMachine:
        check_findings(self.examine(checkpoint))
        return VirtualBoxMachine(spec, self.version, source_of(checkpoint, spec.directory))

    def examine(self, checkpoint: Checkpoint) -> list[Finding]:
        return compare(read_saved_state(checkpoint), self.version)


class GoldenSnapshots:
    """The `contract.GoldenSnapshots` of VirtualBox."""

    def __init__(self, version: Version) -> None:
        self._version = version

    def identity(self) -> dict[str, str]:
        return {
            "driver": VirtualBoxDriver.name,
            "virtualbox": str(self._version),
            "machine": " ".join(command.KERNEL_ARGUMENTS),
            "accelerator": DEVICE if Path(DEVICE).exists() else "none",
            "processor": processor_name(),
        }

    def machine(self, spec: MachineSpec) -> VirtualBoxMachine:
        return VirtualBoxMachine(spec, self._version, is_freezable=True)

    def clone(self, spec: MachineSpec, golden: Path) -> VirtualBoxMachine:
        saved = read_golden(golden)
        check_findings(compare(saved, self._version))
        return VirtualBoxMachine(spec, self._version, Source(saved, golden))


async def open_driver() -> VirtualBoxDriver:
    """Return the driver for the VirtualBox that is installed.

    Raises HypervisorMissingError where there is none, or one that is too old or lacks NVMe disks.
    """
    path = program(MANAGE)
    try:
        text = await asyncio.to_thread(run_quickly, [path, "--version"])
    except (OSError, subprocess.SubprocessError) as error:
        raise HypervisorMissingError(f"{path} does not work: {error}", hint=INSTALL_HINT) from error
    version = parse_version(text)
    if version < OLDEST:
        raise HypervisorMissingError(f"VirtualBox {version} is too old", hint=INSTALL_HINT)
    await check_nvme(version)
    return VirtualBoxDriver(version)
