"""A machine of a job under the client: it serves one task or several."""

from collections.abc import Iterable

from boincvm.hypervisor.contract import Driver, MachineSpec
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.settings import Settings


class TaskMachine(ManagedMachine):
    """One in the slot."""

    def __init__(
        self, driver: Driver, spec: MachineSpec, settings: Settings, steps: Iterable[int] = ()
    ) -> None:
        super().__init__(driver, spec, settings)
        self.steps = list(steps)
        """The tasks that have run in it so far, by their numbers in the job."""
