"""The registry's entry for the QEMU driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.contract import CONTRACT_VERSION

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import Checkpoint, DriverPackage
    from boincvm.hypervisor.doctor import CheckFunction, FindKernel
    from boincvm.hypervisor.qemu.driver import QemuDriver
    from boincvm.hypervisor.qemu.prestarted import QemuPrestart
    from boincvm.hypervisor.verdict import Abilities, Verdict


class QemuPackage:
    """The `contract.DriverPackage` of QEMU."""

    name = "qemu"
    contract_version = CONTRACT_VERSION
    proved_by = "the real QEMU 7.2 under emulation; KVM: on no machine of ours"

    @property
    def abilities(self) -> Abilities:
        from boincvm.hypervisor.qemu.assess import ABILITIES

        return ABILITIES

    @property
    def depends_on(self) -> tuple[str, ...]:
        from boincvm.hypervisor.qemu.assess import DEPENDS_ON

        return DEPENDS_ON

    def assess(self, find_kernel: FindKernel) -> Verdict:
        """Return the verdict. Raises HypervisorMissingError, OSError."""
        from boincvm.hypervisor.qemu.assess import assess

        return assess(find_kernel)

    @property
    def checks(self) -> tuple[tuple[str, CheckFunction], ...]:
        from boincvm.hypervisor.qemu.doctor import CHECKS

        return CHECKS

    @property
    def saved_files(self) -> QemuSavedFiles:
        return QemuSavedFiles()

    def remove_orphans(self) -> int:
        """Return 0: its processes end with ours, and its files lie in its owner's directory."""
        return 0

    async def open(self, kernel: Path | None) -> QemuDriver:
        """Return the driver. Raises HypervisorMissingError."""
        from boincvm.hypervisor.qemu.acceleration import probe
        from boincvm.hypervisor.qemu.driver import QemuDriver

        return QemuDriver((await probe(kernel)).accelerator)

    def prestart(self, kernel: Path) -> QemuPrestart:
        """Return what begins a machine. Raises HypervisorMissingError."""
        from boincvm.hypervisor.qemu.prestarted import QemuPrestart

        return QemuPrestart(kernel)


class QemuSavedFiles:
    """The `contract.SavedFiles` of QEMU."""

    def check(self, directory: Path, checkpoint: Checkpoint, memory: int) -> None:
        """Implement `SavedFiles.check`. Raises HypervisorError, OSError."""
        from boincvm.hypervisor.qemu.saved import check_saved_machine

        check_saved_machine(directory, checkpoint, memory)


PACKAGE: DriverPackage = QemuPackage()
