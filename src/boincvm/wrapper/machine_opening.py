"""How machines come up under the client: from a checkpoint, a golden snapshot or a boot."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from boincvm.errors import GuestError, HypervisorError
from boincvm.hypervisor.contract import Feature, MachineSpec
from boincvm.hypervisor.registry import DriverName, open_driver
from boincvm.image.pack import packed_name, unpack_image
from boincvm.image.store import Image, ImageStore
from boincvm.job.model import Limits
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.golden.background import Warmers
from boincvm.machine.golden.snapshots import discard_golden, find_golden
from boincvm.machine.golden.switch import is_wanted
from boincvm.machine.managed import TaskMachine
from boincvm.machine.saved_machine import SavedMachine, discard_machine, remove_unneeded
from boincvm.side_thread import in_side_thread
from boincvm.wrapper.client_log import log
from boincvm.wrapper.guest_init_data import guest_init_data
from boincvm.wrapper.guest_requests import Messenger
from boincvm.wrapper.task_plan import Surroundings

LIMITS = Limits(boot=900.0, silence=600.0, stop=20.0)
"""Generous: a volunteer's own work goes first, and may leave a guest no processor for minutes."""
INIT_DATA = "init_data.xml"
IMAGE_DIRECTORY = "boincvm-images"
"""In the project's directory: images that came as files of an app version, unpacked."""


class MachineOpening:
    """Each machine stands in `machines`, by its name, from the moment that it is begun."""

    def __init__(
        self,
        around: Surroundings,
        client: Messenger,
        machines: dict[str, TaskMachine],
        is_suspended: Callable[[], bool],
    ) -> None:
        self._around = around
        self._client = client
        self._machines = machines
        self._is_suspended = is_suspended
        self._held = ExitStack()
        self._warmers = Warmers()

    async def image(self, name: str) -> Image:
        """Held until `close`. Raises BoincvmError."""
        image = await in_side_thread(self._open_image, name)
        self._held.enter_context(image)
        return image

    def _open_image(self, name: str) -> Image:
        """One that came as a file of the app version, or one of this user's."""
        path = self._client.resolve(name)
        if path.is_file():
            store = ImageStore(self._around.project_directory / IMAGE_DIRECTORY)
            # By the logical name, so that a new version takes the place of the former one.
            own_name = packed_name(Path(name))
            unpack_image(path, own_name, store)
            return store.open(own_name)
        return ImageStore().open(name)

    async def wake(
        self, name: str, spec: MachineSpec, image: Image, saved: SavedMachine
    ) -> TaskMachine:
        """From where it was saved. Raises BoincvmError."""
        driver = await open_driver(DriverName.QEMU, image.kernel)
        number = saved.checkpoint.number
        remove_unneeded(spec.directory, newest=number)
        try:
            if saved.driver != driver.name:
                raise SavedMachineError(f"it was saved by the driver {saved.driver}")
            made = driver.saved_machine(spec, saved.checkpoint)
            return await self._start(name, TaskMachine(made, LIMITS, saved))
        except (HypervisorError, GuestError) as error:
            raise SavedMachineError(
                f"the saved machine {name} does not wake: {error.message}"
            ) from error

    async def begin(self, name: str, spec: MachineSpec, image: Image) -> TaskMachine:
        """A new one: from a golden snapshot, if there is one. Raises BoincvmError."""
        driver = await open_driver(DriverName.QEMU, image.kernel)
        discard_machine(spec.directory)
        spec.directory.mkdir(mode=0o700)
        if not is_wanted() or Feature.GOLDEN not in driver.features:
            return await self._start(name, TaskMachine(driver.machine(spec), LIMITS, None))
        golden, why = find_golden(image, spec, driver.identity())
        if golden is not None:
            try:
                made = driver.clone(spec, golden.directory)
                return await self._start(name, TaskMachine(made, LIMITS, None, golden))
            except (HypervisorError, GuestError) as error:
                why = error.message
                await self._machines.pop(name).close()
                discard_golden(golden.directory)
                spec.directory.mkdir(mode=0o700, exist_ok=True)
        if why:
            log(f"the machine {name} boots, for its snapshot is of no use: {why}")
        machine = await self._start(name, TaskMachine(driver.machine(spec), LIMITS, None))
        self._warmers.make(image, spec)
        return machine

    async def _start(self, name: str, machine: TaskMachine) -> TaskMachine:
        self._machines[name] = machine
        spec = machine.machine.spec
        known = guest_init_data(self._client.init_data, spec.cpus)
        (spec.directory / INIT_DATA).write_bytes(known)
        if self._is_suspended():
            await machine.suspend()
        await machine.start()
        return machine

    async def close(self) -> None:
        """Lets go of the images, and of the making of snapshots."""
        await self._warmers.close()
        self._held.close()
