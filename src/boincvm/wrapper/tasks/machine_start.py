"""Starts machines under the client: from a checkpoint, a golden snapshot or by a boot."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from boincvm.errors import JobFileError, UsageError
from boincvm.host.programs import prefer_programs_of
from boincvm.hypervisor.choice import choose
from boincvm.hypervisor.contract import Driver, MachineSpec
from boincvm.hypervisor.needs import Needs
from boincvm.hypervisor.registry import open_driver
from boincvm.image.pack import MOST_PATCHES, open_packed, packed_name, patch_names
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
IMAGE_DIRECTORY = "boincvm-images"
"""The directory, in the project's, of images that came as files of an app version, unpacked."""


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
        path = self._client.resolve(name)
        if not path.is_file():
            return ImageStore().open(name)
        store = ImageStore(self._context.project_directory / IMAGE_DIRECTORY)
        # Named by the logical name, so that a new version replaces the former one.
        own_name = packed_name(Path(name))
        patches = self._patches(name)
        if not patches:
            return open_packed(path, store, own_name)
        from boincvm.image.delivery.patched_pack import open_patched  # few app versions have any

        image = open_patched(path, patches, store, own_name)
        count = f"{len(patches)} patches" if len(patches) > 1 else "1 patch"
        log(f"the image {image.digest[:12]} is {name} with {count}")
        return image

    def _patches(self, name: str) -> list[Path]:
        """Return the patch files that follow the packed image `name`. Raises BoincvmError."""
        names = patch_names(name)
        paths = [self._client.resolve(one) for one in names]
        are_here = [path.is_file() for path in paths]
        count = are_here.index(False) if False in are_here else len(paths)
        if any(are_here[count:]):
            raise JobFileError(
                f"{names[are_here.index(True, count)]} is here, and {names[count]} is not, which"
                " it follows",
                hint="the app version must have all patches of its image",
            )
        if count > MOST_PATCHES:
            raise JobFileError(
                f"more than {MOST_PATCHES} patches follow {name}",
                hint="make one in place of several: boincvm image pack --since PACKED NAME FILE",
            )
        return paths[:count]

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
