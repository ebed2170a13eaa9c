"""The registry's entry for the QEMU driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.architecture import kernel_architecture
from boincvm.hypervisor.built_in_package import BuiltInPackage

if TYPE_CHECKING:
    from boincvm.hypervisor.built_in_package import AssessModule, DoctorModule
    from boincvm.hypervisor.contract import Checkpoint, DriverPackage
    from boincvm.hypervisor.qemu.driver import QemuDriver
    from boincvm.hypervisor.qemu.prestarted import QemuPrestart


class QemuPackage(BuiltInPackage):
    """The `contract.DriverPackage` of QEMU."""

    name = "qemu"
    proved_by = (
        "the real QEMU 7.2, and 10.0 and 11.1 in part, under emulation; KVM: on no machine of"
        " ours; HVF and WHPX: nothing yet"
    )

    @property
    def depends_on(self) -> tuple[str, ...]:
        from boincvm.hypervisor.qemu.assess import DEPENDS_ON

        return DEPENDS_ON

    def assess_module(self) -> AssessModule:
        from boincvm.hypervisor.qemu import assess

        return assess

    def doctor_module(self) -> DoctorModule:
        from boincvm.hypervisor.qemu import doctor

        return doctor

    @property
    def saved_files(self) -> QemuSavedFiles:
        return QemuSavedFiles()

    async def open(self, kernel: Path | None) -> QemuDriver:
        """Return the driver. Raises HypervisorMissingError."""
        from boincvm.hypervisor.qemu.acceleration import probe
        from boincvm.hypervisor.qemu.driver import QemuDriver

        architecture = kernel_architecture(kernel)
        return QemuDriver((await probe(kernel)).accelerator, architecture=architecture)

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
