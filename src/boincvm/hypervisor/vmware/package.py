"""The registry's entry for the VMware driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.built_in_package import BuiltInPackage
from boincvm.hypervisor.vmware.installation import DEVICE, VMRUN

if TYPE_CHECKING:
    from boincvm.hypervisor.built_in_package import AssessModule, DoctorModule
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.vmware.driver import VMwareDriver


class VMwarePackage(BuiltInPackage):
    """The `contract.DriverPackage` of VMware."""

    name = "vmware"
    proved_by = "a stand-in for `vmrun` that runs the machine by QEMU; a real VMware: nothing yet"
    depends_on = (VMRUN, "vmware", "vmplayer", str(DEVICE))

    def assess_module(self) -> AssessModule:
        from boincvm.hypervisor.vmware import assess

        return assess

    def doctor_module(self) -> DoctorModule:
        from boincvm.hypervisor.vmware import doctor

        return doctor

    def remove_orphans(self) -> int:
        """Remove machines whose makers were killed. Raises BoincvmError, OSError."""
        from boincvm.hypervisor.vmware.home import remove_orphans

        return remove_orphans()

    async def open(self, kernel: Path | None) -> VMwareDriver:  # noqa: ARG002
        """Return the driver. Raises HypervisorMissingError."""
        from boincvm.hypervisor.vmware.driver import open_driver

        return await open_driver()


PACKAGE: DriverPackage = VMwarePackage()
