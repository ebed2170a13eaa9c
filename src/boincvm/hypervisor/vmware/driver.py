"""The VMware driver."""

import asyncio

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.contract import Checkpoint, Finding, MachineSpec
from boincvm.hypervisor.saved_state import check_findings
from boincvm.hypervisor.vmware.assess import version_of
from boincvm.hypervisor.vmware.definition import MOST_CPUS
from boincvm.hypervisor.vmware.installation import INSTALL_HINT, OLDEST, Product, product_of, vmrun
from boincvm.hypervisor.vmware.machine import VMwareMachine, source_of
from boincvm.hypervisor.vmware.saved import compare, read_saved_state
from boincvm.hypervisor.vmware.vmrun import VMRun


class VMwareDriver:
    """Makes machines on VMware."""

    name = "vmware"
    has_firmware = False
    most_cpus: int | None = MOST_CPUS
    golden_snapshots = None

    def __init__(self, vmrun: VMRun) -> None:
        self.vmrun = vmrun

    @property
    def saved_machines(self) -> "VMwareDriver | None":
        """None for Player, which takes no snapshots."""
        return self if self.vmrun.product is not Product.PLAYER else None

    def machine(self, spec: MachineSpec) -> VMwareMachine:
        return VMwareMachine(spec, self.vmrun)

    def restore(self, spec: MachineSpec, checkpoint: Checkpoint) -> VMwareMachine:
        check_findings(self.examine(checkpoint))
        return VMwareMachine(spec, self.vmrun, source_of(checkpoint))

    def examine(self, checkpoint: Checkpoint) -> list[Finding]:
        return compare(read_saved_state(checkpoint), self.vmrun.version, self.vmrun.product)


async def open_driver() -> VMwareDriver:
    """Return the driver for the VMware that is installed.

    Raises HypervisorMissingError where there is none, or one that is too old.
    """
    path = vmrun()
    version = await asyncio.to_thread(version_of, path)
    if version < OLDEST:
        raise HypervisorMissingError(f"vmrun {version} is too old", hint=INSTALL_HINT)
    return VMwareDriver(VMRun(path, product_of(path), version))
