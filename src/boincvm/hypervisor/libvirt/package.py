"""The registry's entry for the libvirt driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.built_in_package import BuiltInPackage

if TYPE_CHECKING:
    from boincvm.hypervisor.built_in_package import AssessModule, DoctorModule
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.libvirt.driver import LibvirtDriver


class LibvirtPackage(BuiltInPackage):
    """The `contract.DriverPackage` of libvirt."""

    name = "libvirt"
    proved_by = (
        "the real libvirt 9.0 with QEMU 7.2 under emulation, daemons of a session and of a system;"
        " others than QEMU: nothing yet"
    )

    @property
    def depends_on(self) -> tuple[str, ...]:
        from boincvm.hypervisor.libvirt.uri import VARIABLES

        variables = tuple(f"${name}" for name in VARIABLES)
        return ("libvirtd", "virtqemud", "qemu-system-x86_64", "/dev/kvm", *variables)

    def assess_module(self) -> AssessModule:
        from boincvm.hypervisor.libvirt import assess

        return assess

    def doctor_module(self) -> DoctorModule:
        from boincvm.hypervisor.libvirt import doctor

        return doctor

    def remove_orphans(self) -> int:
        """Remove machines whose makers were killed. Raises BoincvmError, OSError."""
        from boincvm.paths import cache_directory

        homes = cache_directory() / "libvirt"
        if not homes.is_dir() or not any(path.is_dir() for path in homes.iterdir()):
            return 0  # no daemon is started for nothing
        from boincvm.hypervisor.libvirt.library import load

        load()  # what follows imports the binding
        from boincvm.hypervisor.libvirt.driver import clean

        return clean()

    async def open(self, kernel: Path | None) -> LibvirtDriver:
        """Return the driver. Raises HypervisorMissingError, HypervisorError, UsageError."""
        from boincvm.hypervisor.libvirt.library import load

        load()  # what follows imports the binding
        from boincvm.hypervisor.libvirt.driver import open_driver

        return await open_driver(kernel)


PACKAGE: DriverPackage = LibvirtPackage()
