"""The registry's entry for the VirtualBox driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.built_in_package import BuiltInPackage
from boincvm.hypervisor.virtualbox.installation import DEVICE, HEADLESS, MANAGE

if TYPE_CHECKING:
    from boincvm.hypervisor.built_in_package import AssessModule, DoctorModule
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.virtualbox.driver import VirtualBoxDriver


class VirtualBoxPackage(BuiltInPackage):
    """The `contract.DriverPackage` of VirtualBox."""

    name = "virtualbox"
    proved_by = "the real VirtualBox 7.2 in its interpreter, without its kernel module; on Linux"
    depends_on = (MANAGE, HEADLESS, DEVICE)

    def assess_module(self) -> AssessModule:
        from boincvm.hypervisor.virtualbox import assess

        return assess

    def doctor_module(self) -> DoctorModule:
        from boincvm.hypervisor.virtualbox import doctor

        return doctor

    def remove_orphans(self) -> int:
        """Remove machines whose makers were killed. Raises BoincvmError, OSError."""
        from boincvm.hypervisor.virtualbox.home import remove_orphans

        return remove_orphans()

    async def open(self, kernel: Path | None) -> VirtualBoxDriver:  # noqa: ARG002
        """Return the driver. Raises HypervisorMissingError."""
        from boincvm.hypervisor.virtualbox.driver import open_driver

        return await open_driver()


PACKAGE: DriverPackage = VirtualBoxPackage()
