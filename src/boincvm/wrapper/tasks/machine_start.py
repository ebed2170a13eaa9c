"""Starts machines under the client: from a checkpoint, a golden snapshot or by a boot."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack

from boincvm.errors import UsageError
from boincvm.host.programs import prefer_programs_of
from boincvm.hypervisor.choice import choose
from boincvm.hypervisor.contract import Driver, MachineSpec
from boincvm.hypervisor.needs import Needs
from boincvm.hypervisor.registry import open_driver
from boincvm.image.store import Image, ImageStore
from boincvm.job.model import DriverRequest, Limits
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.golden.background import Warmers
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.saved_machine import SavedMachine, discard_machine, remove_unneeded
from boincvm.machine.settings import Settings
from boincvm.machine.start_source import Boot, Clone, Restore, StartSource
from boincvm.side_thread import in_side_thread
from boincvm.wrapper.guest_init_data import guest_init_data
from boincvm.wrapper.log import log
from boincvm.wrapper.tasks.app_images import open_app_image
from boincvm.wrapper.tasks.guest_requests import Messenger
from boincvm.wrapper.tasks.resolve import JobContext

SETTINGS = Settings(
    # A volunteer's own work goes first, and may leave a guest no processor for minutes.
    Limits(boot=900.0, silence=600.0, stop=20.0),
    report_period=1.0,  # as often as the client is told
)
INIT_DATA = "init_data.xml"
QEMU_FILE = "qemu.tar.xz"
"""The logical name of QEMU that comes as a file of the app version."""


class TaskMachine(ManagedMachine):
    """A machine of a job in its slot, which serves one task or several."""

    def __init__(
        self, driver: Driver, spec: MachineSpec, settings: Settings, steps: Iterable[int] = ()
    ) -> None:
        super().__init__(driver, spec, settings)
        self.steps = list(steps)
        """The tasks that have run in it so far, by their index in the job."""


class MachineStarter:
    """Starts machines; each is in `machines`, by its name, as soon as its start begins."""

    def __init__(
        self,
        context: JobContext,
        client: Messenger,
        machines: dict[str, TaskMachine],
        is_suspended: Callable[[], bool],
    ) -> None:
        self._context = context
        self._client = client
        self._machines = machines
        self._is_suspended = is_suspended
        self._held = ExitStack()
        self._warmers = Warmers()
        self._has_looked = False

    async def bring_qemu(self) -> None:
        """Have QEMU of the app version, if that has one, taken before the host's.

        Raises BoincvmError.
        """
        if self._has_looked:
            return
        path = self._client.resolve(QEMU_FILE)
        if path.is_file():
            from boincvm.wrapper.packed_qemu import unpacked  # few app versions have one

            directory = await in_side_thread(unpacked, path, self._context.app_files)
            prefer_programs_of(directory)
        self._has_looked = True

    async def image(self, name: str) -> Image:
        """Open an image and hold it until `close`. Raises BoincvmError."""
        image = await in_side_thread(self._open_image, name)
        self._held.enter_context(image)
        return image

    def _open_image(self, name: str) -> Image:
        """Open an image that is a file of the app version, or else one of this user's."""
        image = open_app_image(name, self._client.resolve, self._context.project_directory)
        return ImageStore().open(name) if image is None else image

    async def _driver(
        self, name: str, spec: MachineSpec, image: Image, request: DriverRequest
    ) -> Driver:
        """Choose and open the driver for a new machine. Raises BoincvmError, OSError."""
        needs = Needs(
            request.checkpoint,
            spec.cpus,
            spec.network,
            # Otherwise the client has checked who wrote what runs, and it may start on the host.
            is_trusted=self._context.signed is None,
            architecture=spec.architecture,
        )
        choice = await in_side_thread(choose, needs, request, lambda: image.kernel)
        log(f"the machine {name}: {choice}")
        return await open_driver(choice.driver, image.kernel)

    async def open(
        self,
        name: str,
        spec: MachineSpec,
        image: Image,
        request: DriverRequest,
        saved: SavedMachine | None,
    ) -> TaskMachine:
        """Start a machine: restored from `saved`, or else a new one. Raises BoincvmError."""
        sources: list[StartSource]
        if saved is not None:
            driver = await _driver_of(saved, image)
            remove_unneeded(spec.directory, newest=saved.checkpoint.number)
            # A task's program is attached by the task, which then wakes the machine.
            sources = [Restore(saved, None if saved.task else lambda _link: None)]
        else:
            driver = await self._driver(name, spec, image, request)
            discard_machine(spec.directory)
            spec.directory.mkdir(mode=0o700)
            sources = [Clone(image), Boot()]
        machine = TaskMachine(driver, spec, SETTINGS, saved.steps if saved else ())
        self._machines[name] = machine
        known = guest_init_data(self._client.init_data, spec.cpus)
        (spec.directory / INIT_DATA).write_bytes(known)
        if self._is_suspended():
            await machine.suspend()
        await machine.start(sources)
        if machine.cold_because:
            log(
                f"the machine {name} booted cold: the golden snapshot was unusable:"
                f" {machine.cold_because}"
            )
        if machine.lacks_golden:
            self._warmers.make(image, spec)
        return machine

    async def close(self) -> None:
        """Release the images, and end the processes that make snapshots."""
        await self._warmers.close()
        self._held.close()


async def _driver_of(saved: SavedMachine, image: Image) -> Driver:
    """Open the driver that saved a machine. Raises SavedMachineError, HypervisorMissingError."""
    try:
        return await open_driver(saved.driver, image.kernel)
    except UsageError as error:
        raise SavedMachineError(f"{error.message}, which has saved the machine") from error
