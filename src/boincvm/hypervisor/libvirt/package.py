"""The registry's entry for the libvirt driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from boincvm.hypervisor.contract import CONTRACT_VERSION

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import DriverPackage
    from boincvm.hypervisor.doctor import CheckFunction, FindKernel
    from boincvm.hypervisor.libvirt.driver import LibvirtDriver
    from boincvm.hypervisor.verdict import Abilities, Verdict


class LibvirtPackage:
    """The `contract.DriverPackage` of libvirt."""

    name = "libvirt"
    contract_version = CONTRACT_VERSION
    proved_by = (
        "the real libvirt 9.0 with QEMU 7.2 under emulation, a session's daemon;"
        " others than QEMU: nothing yet"
    )
    depends_on = ("libvirtd", "virtqemud", "qemu-system-x86_64", "/dev/kvm")
    saved_files = None

    @property
    def abilities(self) -> Abilities:
        from boincvm.hypervisor.libvirt.assess import ABILITIES

        return ABILITIES

    def assess(self, find_kernel: FindKernel) -> Verdict:
        """Return the verdict. Raises HypervisorMissingError, UsageError, OSError."""
        from boincvm.hypervisor.libvirt.assess import assess

        return assess(find_kernel)

    @property
    def checks(self) -> tuple[tuple[str, CheckFunction], ...]:
        from boincvm.hypervisor.libvirt.doctor import CHECKS

        return CHECKS

    def remove_orphans(self) -> int:
        """Remove machines whose makers were killed. Raises BoincvmError, OSError."""
        from boincvm.paths import cache_directory

        homes = cache_directory() / "libvirt"
        if not homes.is_dir() or not any(homes.iterdir()):
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

    def prestart(self, kernel: Path) -> None:
        """Return None: the daemon starts its machines, and is not ours."""


PACKAGE: DriverPackage = LibvirtPackage()
