"""The drivers there are. A new one is one file and one line here."""

from enum import StrEnum
from pathlib import Path

from boincvm.hypervisor.acceleration import probe
from boincvm.hypervisor.contract import Driver


class DriverName(StrEnum):
    QEMU = "qemu"
    FAKE = "fake"


async def open_driver(name: DriverName, kernel: Path | None) -> Driver:
    """The driver `name`, ready for machines that boot `kernel`.

    Raises HypervisorMissingError.
    """
    if name is DriverName.FAKE:
        from boincvm.hypervisor.fake import FakeDriver

        return FakeDriver()
    from boincvm.hypervisor.qemu import QemuDriver

    verdict = await probe(kernel)
    return QemuDriver(verdict.accelerator)
