"""What boincvm finds by the entry point; it imports the driver itself when that is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.doctor import Check, CheckFunction, FindKernel
    from boincvm.hypervisor.verdict import Abilities, Verdict
    from plain_qemu.driver import PlainDriver

PROGRAM = "qemu-system-x86_64"
INSTALL_HINT = "install QEMU"


class PlainPackage:
    """The `DriverPackage` of plain QEMU."""

    name = "plainqemu"
    contract_version = 4
    """Not imported from boincvm: it is what this driver was written for, whatever boincvm has."""
    proved_by = "the real QEMU 7.2 under emulation"
    depends_on = (PROGRAM,)
    saved_files = None

    @property
    def abilities(self) -> Abilities:
        from boincvm.hypervisor.verdict import Abilities

        return Abilities(frozenset())

    def assess(self, find_kernel: FindKernel) -> Verdict:  # noqa: ARG002 - nothing is booted
        from boincvm.host.programs import find_program
        from boincvm.hypervisor.doctor import last_line, output_of
        from boincvm.hypervisor.verdict import Isolation, Speed, Verdict, unusable

        path = find_program(PROGRAM)
        if path is None:
            return unusable(f"no {PROGRAM}", INSTALL_HINT)
        status, text = output_of(path, "--version")
        if status != 0:
            return unusable(f"{path} does not run: {last_line(text)}", INSTALL_HINT)
        return Verdict(
            version=text.split("version ", 1)[-1].split()[0],
            acceleration="emulation: this driver uses nothing else",
            speed=Speed.EMULATED,
            isolation=Isolation.SANDBOX,
            isolated_by="QEMU's seccomp filter",
            abilities=self.abilities,
        )

    @property
    def checks(self) -> tuple[tuple[str, CheckFunction], ...]:
        return (("plain qemu", self._poll),)

    def _poll(self, find_kernel: FindKernel) -> list[Check]:
        from boincvm.hypervisor.doctor import Check, Status

        verdict = self.assess(find_kernel)
        if verdict.trouble:
            return [Check("plain qemu", Status.WARNING, verdict.trouble, verdict.remedy)]
        return [Check("plain qemu", Status.OK, f"version {verdict.version}")]

    def remove_orphans(self) -> int:
        """Return 0: its processes end with boincvm's,
        and its files lie in the machine's directory."""
        return 0

    async def open(self, kernel: Path | None) -> PlainDriver:  # noqa: ARG002
        """Return the driver. Raises HypervisorMissingError."""
        from boincvm.errors import HypervisorMissingError
        from boincvm.host.programs import find_program
        from plain_qemu.driver import PlainDriver

        path = find_program(PROGRAM)
        if path is None:
            raise HypervisorMissingError(f"{PROGRAM} is not installed", hint=INSTALL_HINT)
        return PlainDriver(path)

    def prestart(self, kernel: Path) -> None:
        """Return None: its machines wait for the event loop."""


PACKAGE: DriverPackage = PlainPackage()
