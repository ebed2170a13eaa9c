"""What the packages of boincvm's own drivers have in common: nothing is imported before its use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import Prestart, SavedFiles
    from boincvm.hypervisor.doctor import CheckFunction, FindKernel
    from boincvm.hypervisor.verdict import Abilities, Verdict


class AssessModule(Protocol):
    """A driver's module `assess`."""

    ABILITIES: Abilities

    def assess(self, find_kernel: FindKernel, /) -> Verdict:
        """Implement `DriverPackage.assess`."""


class DoctorModule(Protocol):
    """A driver's module `doctor`."""

    CHECKS: tuple[tuple[str, CheckFunction], ...]


class BuiltInPackage(ABC):
    """A `contract.DriverPackage` but for its name, `proved_by`, `depends_on` and `open`.

    The defaults are those of a driver whose processes end with ours, which checks no saved files
    and begins nothing before there is an event loop.
    """

    @property
    def contract_version(self) -> int:
        from boincvm.hypervisor.contract import CONTRACT_VERSION

        return CONTRACT_VERSION

    @abstractmethod
    def assess_module(self) -> AssessModule:
        """Import the driver's module `assess`. Raises HypervisorMissingError."""

    @abstractmethod
    def doctor_module(self) -> DoctorModule:
        """Import the driver's module `doctor`."""

    @property
    def abilities(self) -> Abilities:
        return self.assess_module().ABILITIES

    def assess(self, find_kernel: FindKernel) -> Verdict:
        """Implement `DriverPackage.assess`. Raises BoincvmError, OSError."""
        return self.assess_module().assess(find_kernel)

    @property
    def checks(self) -> tuple[tuple[str, CheckFunction], ...]:
        return self.doctor_module().CHECKS

    @property
    def saved_files(self) -> SavedFiles | None:
        return None

    def remove_orphans(self) -> int:
        """Return 0: its processes end with ours, and its files lie in its owner's directory."""
        return 0

    def prestart(self, kernel: Path) -> Prestart | None:  # noqa: ARG002
        """Return None: nothing can be begun."""
        return None
