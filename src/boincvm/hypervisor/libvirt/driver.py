"""The libvirt driver."""

from pathlib import Path

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.libvirt.assess import is_accelerated
from boincvm.hypervisor.libvirt.connection import START_LIMIT, call, connect
from boincvm.hypervisor.libvirt.home import remove_orphans
from boincvm.hypervisor.libvirt.machine import LibvirtMachine
from boincvm.hypervisor.libvirt.uri import Uri, chosen_uri
from boincvm.side_thread import in_side_thread


class LibvirtDriver:
    """Makes machines by libvirt."""

    name = "libvirt"
    has_firmware = True
    most_cpus: int | None = None
    saved_machines = None
    golden_snapshots = None

    def __init__(self, uri: Uri, *, is_accelerated: bool) -> None:
        self.uri = uri
        self.is_accelerated = is_accelerated

    def machine(self, spec: MachineSpec) -> LibvirtMachine:
        return LibvirtMachine(spec, self.uri, is_accelerated=self.is_accelerated)


async def open_driver(kernel: Path | None) -> LibvirtDriver:
    """Return the driver, once it has removed what machines of killed processes have left.

    Raises HypervisorMissingError, HypervisorError, UsageError.
    """
    uri = chosen_uri()
    await call(START_LIMIT, clean, uri)
    return LibvirtDriver(uri, is_accelerated=await in_side_thread(is_accelerated, uri, kernel))


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
