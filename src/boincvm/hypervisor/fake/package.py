"""The registry's entry for the fake driver."""

from pathlib import Path

from boincvm.hypervisor.contract import CONTRACT_VERSION, DriverPackage
from boincvm.hypervisor.doctor import CheckFunction, FindKernel
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.verdict import Abilities, Ability, Verdict


class FakePackage:
    """The `contract.DriverPackage` of the fake driver."""

    name = "fake"
    contract_version = CONTRACT_VERSION
    proved_by = "itself only: it exists in memory"
    abilities = Abilities(
        frozenset((Ability.CHECKPOINT, Ability.NETWORK, Ability.BALLOON, Ability.FIRMWARE))
    )
    depends_on: tuple[str, ...] = ()
    checks: tuple[tuple[str, CheckFunction], ...] = ()
    saved_files = None

    def assess(self, find_kernel: FindKernel) -> Verdict:  # noqa: ARG002
        return Verdict(version="1", abilities=self.abilities)

    def remove_orphans(self) -> int:
        """Return 0: nothing of it outlives its process."""
        return 0

    async def open(self, kernel: Path | None) -> FakeDriver:  # noqa: ARG002
        return FakeDriver()

    def prestart(self, kernel: Path) -> None:
        """Return None: there is nothing to begin."""


PACKAGE: DriverPackage = FakePackage()
