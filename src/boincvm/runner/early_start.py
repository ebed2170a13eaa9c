"""What a run starts before there is an event loop: its directory, image and machine."""

from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Self

from boincvm.errors import BoincvmError, HypervisorMissingError, UsageError
from boincvm.guestlink.host_name import host_name
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.choice import Choice, advise, choose_for_run
from boincvm.hypervisor.machine_spec import MachineSpec
from boincvm.hypervisor.needs import Needs
from boincvm.hypervisor.registry import find_driver
from boincvm.image.store import Image, ImageStore
from boincvm.job.model import Job, MachineTask
from boincvm.machine.admission import check_processors
from boincvm.machine.prestart import Prestarted
from boincvm.machine.spec import machine_spec
from boincvm.runner.run_directory import run_directory

if TYPE_CHECKING:
    from boincvm.image.delivery.on_demand import OnDemandRoot


class EarlyStart:
    """A context that starts the machine of `job` early.

    After the block the machine and its directory are removed, and the image is released.
    """

    def __init__(self, job: Job[MachineTask], driver: str | None = None) -> None:
        """Take the job, and the driver that the command line asks for, if any."""
        self._driver = driver
        self._job = job
        self.choice: Choice | None = None
        """The driver, once one has been chosen."""
        self._stack = ExitStack()
        self._prestarted: Prestarted | None = None
        self._failure: BoincvmError | None = None
        self.on_demand: OnDemandRoot | None = None
        """What the disk of a partial image is read from."""
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
        check_processors(job.machine.cpus)
        # The directory comes first: if there is nowhere to write, that is the error to report.
        directory = stack.enter_context(run_directory())
        store = ImageStore()
        image = stack.enter_context(store.open(job.machine.image, partly=True))
        self.store = image.golden.parent
        if image.is_partial:
            from boincvm.image.delivery.on_demand import open_on_demand

            self.on_demand = stack.enter_context(open_on_demand(store, image))
        spec = machine_spec(job.machine, image, directory, self.on_demand)
        spec = spec._replace(ephemeral=True, host_name=host_name(job.name), forwards=job.forwards)
        spec = spec._replace(remote_desktop=job.remote_desktop, gpu=job.gpu)
        if job.forwards:
            from boincvm.machine.free_ports import check_free

            check_free(job.forwards)
        prestarted = self._prestart(image, spec)
        stack.callback(prestarted.end)
        return prestarted

    def _prestart(self, image: Image, spec: MachineSpec) -> Prestarted:
        """Choose the driver and start the machine."""
        request, silence = self._job.driver_request(), self._job.limits.silence
        needs = Needs(
            request.checkpoint,
            spec.cpus,
            spec.network,
            port_forwarding=bool(spec.forwards),
            remote_desktop=spec.remote_desktop,
            on_demand=spec.root_source is not None,
            gpu=spec.gpu is not None,
            architecture=spec.architecture,
        )

        def find_kernel() -> Path:
            return image.kernel

        self.choice = choose_for_run(self._driver, request, needs, find_kernel)
        if self.on_demand is not None:
            _check_on_demand(self.choice.driver, image.name)
        if spec.gpu is not None:
            _check_gpu(self.choice.driver, spec.architecture)
        try:
            return Prestarted(self.choice.driver, image, spec, silence)
        except HypervisorMissingError:
            if self.choice.reason:  # it was asked for, or is what works best here
                raise
            # Nobody cares which one it is, so another one that is here is as good.
            self.choice = advise(needs, find_kernel)
            return Prestarted(self.choice.driver, image, spec, silence)

    def result(self) -> Prestarted:
        """Return what was started. Raises the BoincvmError that prevented it."""
        if self._prestarted is None:
            raise self._failure or RuntimeError("no early start was made")
        return self._prestarted


def _check_gpu(driver: str, architecture: Architecture) -> None:
    """Raise UsageError if a driver's machines cannot have a graphics card of the host."""
    from boincvm.hypervisor.verdict import Ability  # rarely needed

    can = Ability.GPU in find_driver(driver).abilities.of_machines
    if not can or architecture is not Architecture.X86_64:
        kind = "" if architecture is Architecture.X86_64 else f" for {architecture.value}"
        raise UsageError(
            f"a machine{kind} of the driver {driver} cannot have a graphics card of the host",
            hint="leave out gpu, or use the driver qemu on Linux, with an image for amd64",
        )


def _check_on_demand(driver: str, image: str) -> None:
    """Raise UsageError if a driver cannot read a disk on demand."""
    from boincvm.hypervisor.verdict import Ability  # rarely needed

    if Ability.ON_DEMAND not in find_driver(driver).abilities.of_machines:
        raise UsageError(
            f"a machine of the driver {driver} cannot read its disk on demand, and of image {image}"
            " only a part is here",
            hint=f"bring all of it: boincvm image fetch URL {image}; or use the driver qemu",
        )
