"""The registry's entry for the VirtualBox driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.contract import CONTRACT_VERSION
from boincvm.hypervisor.virtualbox.installation import DEVICE, HEADLESS, MANAGE

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.doctor import CheckFunction, FindKernel
    from boincvm.hypervisor.verdict import Abilities, Verdict
    from boincvm.hypervisor.virtualbox.driver import VirtualBoxDriver


class VirtualBoxPackage:
    """The `contract.DriverPackage` of VirtualBox."""

    name = "virtualbox"
    contract_version = CONTRACT_VERSION
    proved_by = "the real VirtualBox 7.2 in its interpreter, without its kernel module; on Linux"
    depends_on = (MANAGE, HEADLESS, DEVICE)
    saved_files = None

    @property
    def abilities(self) -> Abilities:
        from boincvm.hypervisor.virtualbox.assess import ABILITIES

        return ABILITIES

    def assess(self, find_kernel: FindKernel) -> Verdict:
        """Return the verdict. Raises HypervisorMissingError."""
        from boincvm.hypervisor.virtualbox.assess import assess

        return assess(find_kernel)

    @property
    def checks(self) -> tuple[tuple[str, CheckFunction], ...]:
        from boincvm.hypervisor.virtualbox.doctor import CHECKS

        return CHECKS

    def remove_orphans(self) -> int:
        """Remove machines whose makers were killed. Raises BoincvmError, OSError."""
        from boincvm.hypervisor.virtualbox.home import remove_orphans

        return remove_orphans()

    async def open(self, kernel: Path | None) -> VirtualBoxDriver:  # noqa: ARG002
        """Return the driver. Raises HypervisorMissingError."""
        from boincvm.hypervisor.virtualbox.driver import open_driver

        return await open_driver()

    def prestart(self, kernel: Path) -> None:
        """Return None: its start takes longer than any import."""


PACKAGE: DriverPackage = VirtualBoxPackage()
