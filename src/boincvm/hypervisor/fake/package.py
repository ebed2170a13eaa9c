"""The registry's entry for the fake driver."""

from pathlib import Path

from boincvm.hypervisor.contract import DriverPackage
from boincvm.hypervisor.doctor import LookUp
from boincvm.hypervisor.fake.driver import FakeDriver


class FakePackage:
    """The `contract.DriverPackage` of the fake driver."""

    name = "fake"
    look_ups: tuple[tuple[str, LookUp], ...] = ()
    saved_files = None

    async def open(self, kernel: Path | None) -> FakeDriver:  # noqa: ARG002
        return FakeDriver()

    def prestart(self, kernel: Path) -> None:
        """Return None: there is nothing to begin."""


PACKAGE: DriverPackage = FakePackage()
