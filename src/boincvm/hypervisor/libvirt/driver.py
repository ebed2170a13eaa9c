"""The libvirt driver."""

from pathlib import Path

from boincvm.hypervisor.contract import Checkpoint, Finding, MachineSpec
from boincvm.hypervisor.libvirt.assess import is_accelerated
from boincvm.hypervisor.libvirt.connection import START_LIMIT, call, connect
from boincvm.hypervisor.libvirt.golden import golden_identity, read_golden
from boincvm.hypervisor.libvirt.home import remove_orphans
from boincvm.hypervisor.libvirt.machine import LibvirtMachine
from boincvm.hypervisor.libvirt.saved import (
    Source,
    Versions,
    examine,
    read_saved_state,
    source_of,
)
from boincvm.hypervisor.libvirt.uri import SAVES, Uri, chosen_uri
from boincvm.hypervisor.saved_state import check_findings
from boincvm.side_thread import in_side_thread


class LibvirtDriver:
    """Makes machines by libvirt."""

    name = "libvirt"
    has_firmware = True
    most_cpus: int | None = None

    def __init__(self, uri: Uri, versions: Versions) -> None:
        self.uri = uri
        self.versions = versions

    @property
    def saved_machines(self) -> "LibvirtDriver | None":
        return self if self.uri.hypervisor == SAVES else None

    @property
    def golden_snapshots(self) -> "LibvirtGoldenSnapshots | None":
        return LibvirtGoldenSnapshots(self) if self.uri.hypervisor == SAVES else None

    def machine(self, spec: MachineSpec) -> LibvirtMachine:
        return LibvirtMachine(spec, self.uri, self.versions)

    def restore(self, spec: MachineSpec, checkpoint: Checkpoint) -> LibvirtMachine:
        """Implement `SavedMachines.restore`."""
        check_findings(self.examine(checkpoint))
        source = source_of(checkpoint, spec.directory)
        return LibvirtMachine(spec, self.uri, self.versions, source)

    def examine(self, checkpoint: Checkpoint) -> list[Finding]:
        """Implement `SavedMachines.examine`."""
        return examine(read_saved_state(checkpoint), self.versions)


class LibvirtGoldenSnapshots:
    """The `contract.GoldenSnapshots` of libvirt."""

    def __init__(self, driver: LibvirtDriver) -> None:
        self._driver = driver

    def identity(self) -> dict[str, str]:
        return golden_identity(self._driver.versions)

    def machine(self, spec: MachineSpec) -> LibvirtMachine:
        driver = self._driver
        return LibvirtMachine(spec, driver.uri, driver.versions, is_freezable=True)

    def clone(self, spec: MachineSpec, golden: Path) -> LibvirtMachine:
        driver, saved = self._driver, read_golden(golden)
        check_findings(examine(saved, driver.versions))
        source = Source(saved, golden, checkpoint=None)
        return LibvirtMachine(spec, driver.uri, driver.versions, source)


async def open_driver(kernel: Path | None) -> LibvirtDriver:
    """Return the driver, once it has removed what machines of killed processes have left.

    Raises HypervisorMissingError, HypervisorError, UsageError.
    """
    uri = chosen_uri()
    await call(START_LIMIT, clean, uri)
    accelerated = await in_side_thread(is_accelerated, uri, kernel)
    return LibvirtDriver(uri, await call(START_LIMIT, _versions, uri, accelerated))


def _versions(uri: Uri, accelerated: bool) -> Versions:
    connection = connect(uri)
    try:
        # Xen's and others' drivers may not tell a version.
        version = connection.getVersion() if uri.hypervisor == SAVES else 0
        return Versions(uri.hypervisor, version, connection.getLibVersion(), accelerated)
    finally:
        connection.close()


def clean(uri: Uri | None = None) -> int:
    """Remove what machines of killed processes have left; return how many.

    Raises HypervisorError, UsageError, OSError.
    """
    uri = uri or chosen_uri()
    connection = connect(uri)
    try:
        return remove_orphans(connection, uri)
    finally:
        connection.close()
