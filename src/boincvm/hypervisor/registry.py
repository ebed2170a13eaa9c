"""The drivers there are. A new one is one file and one line here."""

from enum import StrEnum
from pathlib import Path

from boincvm.hypervisor.contract import Driver, Prestart
from boincvm.hypervisor.qemu.acceleration import probe


class DriverName(StrEnum):
    QEMU = "qemu"
    FAKE = "fake"


async def open_driver(name: DriverName, kernel: Path | None) -> Driver:
    """The driver `name`, ready for machines that boot `kernel`.

    Raises HypervisorMissingError.
    """
    if name is DriverName.FAKE:
        from boincvm.hypervisor.fake.driver import FakeDriver

        return FakeDriver()
    from boincvm.hypervisor.qemu.driver import QemuDriver

    verdict = await probe(kernel)
    return QemuDriver(verdict.accelerator)


def prestart(kernel: Path) -> Prestart:
    """QEMU's, for a machine that boots `kernel`. Raises HypervisorMissingError."""
    from boincvm.hypervisor.qemu.prestarted import QemuPrestart

    return QemuPrestart(kernel)
