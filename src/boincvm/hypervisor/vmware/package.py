"""The registry's entry for the VMware driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.contract import CONTRACT_VERSION
from boincvm.hypervisor.vmware.installation import DEVICE, VMRUN

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.doctor import CheckFunction, FindKernel
    from boincvm.hypervisor.verdict import Abilities, Verdict
    from boincvm.hypervisor.vmware.driver import VMwareDriver


class VMwarePackage:
    """The `contract.DriverPackage` of VMware."""

    name = "vmware"
    contract_version = CONTRACT_VERSION
    proved_by = "a stand-in for `vmrun` that runs the machine by QEMU; a real VMware: nothing yet"
    depends_on = (VMRUN, "vmware", "vmplayer", str(DEVICE))
    saved_files = None

    @property
    def abilities(self) -> Abilities:
        from boincvm.hypervisor.vmware.assess import ABILITIES

        return ABILITIES

    def assess(self, find_kernel: FindKernel) -> Verdict:
        """Return the verdict. Raises HypervisorMissingError."""
        from boincvm.hypervisor.vmware.assess import assess

        return assess(find_kernel)

    @property
    def checks(self) -> tuple[tuple[str, CheckFunction], ...]:
        from boincvm.hypervisor.vmware.doctor import CHECKS

        return CHECKS

    def remove_orphans(self) -> int:
        """Remove machines whose makers were killed. Raises BoincvmError, OSError."""
        from boincvm.hypervisor.vmware.home import remove_orphans

        return remove_orphans()

    async def open(self, kernel: Path | None) -> VMwareDriver:  # noqa: ARG002
        """Return the driver. Raises HypervisorMissingError."""
        from boincvm.hypervisor.vmware.driver import open_driver

        return await open_driver()

    def prestart(self, kernel: Path) -> None:
        """Return None: its start takes longer than any import."""


PACKAGE: DriverPackage = VMwarePackage()
