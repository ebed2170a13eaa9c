"""The registry's entry for the User-mode Linux driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.contract import CONTRACT_VERSION
from boincvm.hypervisor.uml.command import PROGRAM, find, namespace_command

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.doctor import FindKernel, LookUp
    from boincvm.hypervisor.uml.driver import UmlDriver
    from boincvm.hypervisor.verdict import Abilities, Verdict


class UmlPackage:
    """The `contract.DriverPackage` of User-mode Linux."""

    name = "uml"
    contract_version = CONTRACT_VERSION
    proved_by = "the real User-mode Linux 6.1"
    depends_on = (PROGRAM, "unshare")
    saved_files = None

    @property
    def abilities(self) -> Abilities:
        from boincvm.hypervisor.uml.assess import ABILITIES

        return ABILITIES

    def assess(self, find_kernel: FindKernel) -> Verdict:
        """Return the verdict. Raises HypervisorMissingError."""
        from boincvm.hypervisor.uml.assess import assess

        return assess(find_kernel)

    @property
    def look_ups(self) -> tuple[tuple[str, LookUp], ...]:
        from boincvm.hypervisor.uml.doctor import LOOK_UPS

        return LOOK_UPS

    async def open(self, kernel: Path | None) -> UmlDriver:  # noqa: ARG002 - it has its own
        """Return the driver. Raises HypervisorMissingError."""
        from boincvm.hypervisor.uml.driver import UmlDriver

        namespace_command()
        find(PROGRAM)
        return UmlDriver()

    def prestart(self, kernel: Path) -> None:
        """Return None: its boot takes longer than any import."""


PACKAGE: DriverPackage = UmlPackage()
