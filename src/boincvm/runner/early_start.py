"""What a run starts before there is an event loop: its directory, image and machine."""

from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Self

from boincvm.errors import BoincvmError
from boincvm.guestlink.host_name import host_name
from boincvm.hypervisor.registry import DEFAULT
from boincvm.image.store import ImageStore
from boincvm.job.model import Job, MachineTask
from boincvm.machine.prestart import Prestarted
from boincvm.machine.spec import machine_spec
from boincvm.runner.run_directory import run_directory


class EarlyStart:
    """A context that starts the machine of `job` early.

    After the block the machine and its directory are removed, and the image is released.
    """

    def __init__(self, job: Job[MachineTask], driver: str = DEFAULT) -> None:
        self._driver = driver
        self._job = job
        self._stack = ExitStack()
        self._prestarted: Prestarted | None = None
        self._failure: BoincvmError | None = None
        self.at = 0.0
        """When the start began, by the monotonic clock."""
        self.store = Path()
        """The directory of the images."""

    def __enter__(self) -> Self:
        self.at = monotonic()
        with ExitStack() as stack:
            try:
                self._prestarted = self._begin(stack)
            except BoincvmError as error:
                # Raised by `result`, where all failures of a run are reported.
                self._failure = error
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self, stack: ExitStack) -> Prestarted:
        job = self._job
        # The directory comes first: if there is nowhere to write, that is the error to report.
        directory = stack.enter_context(run_directory())
        image = stack.enter_context(ImageStore().open(job.machine.image))
        self.store = image.golden.parent
        spec = machine_spec(job.machine, image, directory)
        spec = spec._replace(ephemeral=True, host_name=host_name(job.name))
        prestarted = Prestarted(self._driver, image, spec, job.limits.silence)
        stack.callback(prestarted.end)
        return prestarted

    def result(self) -> Prestarted:
        """Return what was started. Raises the BoincvmError that prevented it."""
        if self._prestarted is None:
            raise self._failure or RuntimeError("no early start was made")
        return self._prestarted
