"""The registry's entry for the User-mode Linux driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.contract import CONTRACT_VERSION
from boincvm.hypervisor.uml.kernel import OWN, PROGRAM, find_kernel
from boincvm.paths import guest_kernel

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.doctor import CheckFunction, FindKernel
    from boincvm.hypervisor.uml.driver import UmlDriver
    from boincvm.hypervisor.uml.launch import UmlPrestart
    from boincvm.hypervisor.verdict import Abilities, Verdict


class UmlPackage:
    """The `contract.DriverPackage` of User-mode Linux."""

    name = "uml"
    contract_version = CONTRACT_VERSION
    proved_by = "our own User-mode Linux 7.3 and Debian's 6.1"
    saved_files = None

    @property
    def depends_on(self) -> tuple[str, ...]:
        return (PROGRAM, str(guest_kernel(OWN)), "bwrap", "prlimit", "setpriv", "taskset")

    @property
    def abilities(self) -> Abilities:
        from boincvm.hypervisor.uml.assess import ABILITIES

        return ABILITIES

    def assess(self, find_kernel: FindKernel) -> Verdict:
        """Return the verdict. Raises HypervisorMissingError."""
        from boincvm.hypervisor.uml.assess import assess

        return assess(find_kernel)

    @property
    def checks(self) -> tuple[tuple[str, CheckFunction], ...]:
        from boincvm.hypervisor.uml.doctor import CHECKS

        return CHECKS

    def remove_orphans(self) -> int:
        """Return 0: its processes end with ours, and its files lie in its owner's directory."""
        return 0

    async def open(self, kernel: Path | None) -> UmlDriver:  # noqa: ARG002
        """Return the driver. Raises HypervisorMissingError."""
        from boincvm.hypervisor.uml.driver import UmlDriver
        from boincvm.hypervisor.uml.sandbox import find

        program = find_kernel()
        find("bwrap")
        return UmlDriver(program)

    def prestart(self, kernel: Path) -> UmlPrestart:  # noqa: ARG002
        """Return what begins a machine. Raises HypervisorMissingError."""
        from boincvm.hypervisor.uml.launch import UmlPrestart

        return UmlPrestart()


PACKAGE: DriverPackage = UmlPackage()
