"""The registry's entry for the User-mode Linux driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.built_in_package import BuiltInPackage
from boincvm.hypervisor.uml.kernel import OWN, PROGRAM, find_kernel
from boincvm.paths import guest_kernel

if TYPE_CHECKING:
    from boincvm.hypervisor.built_in_package import AssessModule, DoctorModule
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.uml.driver import UmlDriver
    from boincvm.hypervisor.uml.prestarted import UmlPrestart


class UmlPackage(BuiltInPackage):
    """The `contract.DriverPackage` of User-mode Linux."""

    name = "uml"
    proved_by = "our own User-mode Linux 7.3 and Debian's 6.1"

    @property
    def depends_on(self) -> tuple[str, ...]:
        sandbox = ("bwrap", "prlimit", "setpriv", "taskset")
        return (PROGRAM, str(guest_kernel(OWN)), *sandbox, "qemu-system-x86_64")

    def assess_module(self) -> AssessModule:
        from boincvm.hypervisor.uml import assess

        return assess

    def doctor_module(self) -> DoctorModule:
        from boincvm.hypervisor.uml import doctor

        return doctor

    async def open(self, kernel: Path | None) -> UmlDriver:  # noqa: ARG002
        """Return the driver. Raises HypervisorMissingError."""
        from boincvm.hypervisor.uml.driver import UmlDriver
        from boincvm.hypervisor.uml.sandbox import find

        program = find_kernel()
        find("bwrap")
        return UmlDriver(program)

    def prestart(self, kernel: Path) -> UmlPrestart:  # noqa: ARG002
        """Return what begins a machine. Raises HypervisorMissingError."""
        from boincvm.hypervisor.uml.prestarted import UmlPrestart

        return UmlPrestart()


PACKAGE: DriverPackage = UmlPackage()
