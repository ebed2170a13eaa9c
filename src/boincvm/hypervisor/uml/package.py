"""What the registry finds of the driver for User-mode Linux."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.uml.command import PROGRAM, find, namespace_command

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.doctor import LookUp
    from boincvm.hypervisor.uml.driver import UmlDriver


class UmlPackage:
    """See `contract.DriverPackage`."""

    name = "uml"
    saved_files = None

    @property
    def look_ups(self) -> tuple[tuple[str, LookUp], ...]:
        from boincvm.hypervisor.uml.doctor import LOOK_UPS

        return LOOK_UPS

    async def open(self, kernel: Path | None) -> UmlDriver:  # noqa: ARG002 - it has its own
        """Raises HypervisorMissingError."""
        from boincvm.hypervisor.uml.driver import UmlDriver

        namespace_command()
        find(PROGRAM)
        return UmlDriver()

    def prestart(self, kernel: Path) -> None:
        """Its boot takes longer than any import."""


PACKAGE: DriverPackage = UmlPackage()
