"""The machines of a job under the client: which task runs in which, and how long they live.

A machine's files lie in the slot, in `boincvm-machine-N/`, mode 0700, N counting the machines'
names in the order of the job file.
"""

import shutil
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from boincvm.errors import GuestError, HypervisorError
from boincvm.guestlink.put import check_source
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.drivers import DriverName, open_driver
from boincvm.image.pack import packed_name, unpack_image
from boincvm.image.store import Image, ImageStore
from boincvm.job.boinc_job import BoincJob, MachineUse
from boincvm.job.model import InputFile, Limits
from boincvm.wrapper.checkpoint_times import CheckpointTimes
from boincvm.wrapper.client_log import log
from boincvm.wrapper.guest_init_data import guest_init_data
from boincvm.wrapper.guest_requests import GuestRequests, Messenger
from boincvm.wrapper.host_room import check_room
from boincvm.wrapper.machine_memory import MachineMemory
from boincvm.wrapper.machine_task import MachineTask
from boincvm.wrapper.saved_machine import (
    SavedMachine,
    read_saved,
    sync_files,
    write_saved,
)
from boincvm.wrapper.side_thread import in_side_thread
from boincvm.wrapper.task_errors import SavedMachineError
from boincvm.wrapper.task_machine import TaskMachine
from boincvm.wrapper.task_plan import Surroundings, machine_command, machine_shape

LIMITS = Limits(boot=900.0, silence=600.0, stop=20.0)
"""Generous: a volunteer's own work goes first, and may leave a guest no processor for minutes."""
INIT_DATA = "init_data.xml"
IMAGE_DIRECTORY = "boincvm-images"
"""In the project's directory: images that came as files of an app version, unpacked."""


class MachineSteps:
    """Opens, shares, saves and removes the machines of `job`."""

    def __init__(self, job: BoincJob, around: Surroundings, client: Messenger) -> None:
        self._job = job
        self._around = around
        self._client = client
        self._names = list(dict.fromkeys(use.name for use in self._uses() if use))
        self._machines: dict[str, TaskMachine] = {}
        self._images: dict[str, Image] = {}
        self._saved: dict[str, SavedMachine] = {}
        self._kept: dict[str, str] = {}
        self._held = ExitStack()
        self._is_suspended = False
        self._network = True
        self.memory = MachineMemory(lambda: client.init_data, self._machines)
        self.times = CheckpointTimes(client.init_data.checkpoint_period)
        self.current: MachineTask | None = None
        self._operations: tuple[float, float] | None = None
        self.finish_message = ""

    def _uses(self) -> list[MachineUse | None]:
        return [task.machine for task in self._job.tasks]

    def _directory(self, name: str) -> Path:
        return self._around.slot / f"boincvm-machine-{self._names.index(name)}"

    @property
    def operations(self) -> tuple[float, float] | None:
        """What the last program that said anything of it has done."""
        said = self.current.requests.operations if self.current else None
        return said or self._operations

    # Where to begin.

    def first_step(self, done: int) -> int:
        """The task to begin with where `done` are done: a machine that is lost takes with it
        what its tasks have done in it, unless no later task needs the machine."""
        first = done
        for name in self._names:
            steps = [i for i, use in enumerate(self._uses()) if use and use.name == name]
            if steps[-1] < done:
                self._discard(name)
                continue
            saved = self._read_saved(name, steps)
            if saved is not None:
                self._saved[name] = saved
                first = min(first, saved.task.number if saved.task else done)
            elif steps[0] < done:
                log(f"the machine {name} is lost: its tasks begin anew")
                first = min(first, steps[0])
        return first

    def _read_saved(self, name: str, steps: list[int]) -> SavedMachine | None:
        """What was saved of the machine, if it can be used; else its files are removed."""
        try:
            saved = read_saved(self._directory(name))
            if saved is None:
                if self._directory(name).exists():
                    log(f"the machine {name} did not live to be saved")
            elif saved.shape != machine_shape(self._use(name), self._around):
                raise SavedMachineError("the job asks for another machine than it did")
            elif not set(saved.steps) <= set(steps):
                raise SavedMachineError("it was saved by another job")
            else:
                return saved
        except SavedMachineError as error:
            log(f"the saved machine {name} cannot be used: {error.message}")
        self._discard(name)
        return None

    def _use(self, name: str) -> MachineUse:
        return next(use for use in self._uses() if use and use.name == name)

    def _discard(self, name: str) -> None:
        shutil.rmtree(self._directory(name), ignore_errors=True)

    # Tasks.

    def step(self, index: int) -> MachineTask:
        """Task `index`, ready to be awaited. Raises JobFileError, InputFileError."""
        task = self._job.tasks[index]
        if task.machine is None:
            raise ValueError(f"task {index} runs on the host")
        use = task.machine
        saved = self._saved.get(use.name)
        was_running = saved.task if saved and saved.task and saved.task.number == index else None
        command = machine_command(task, use, self._around)
        for item in command.inputs:
            check_source(item.source.parent, Path(item.source.name))
        if not self._client.is_standalone:
            known = InputFile(self._directory(use.name) / INIT_DATA, PurePosixPath(INIT_DATA))
            command = command._replace(inputs=(known, *command.inputs))
        self.current = MachineTask(
            index,
            command,
            lambda: self._open(use),
            lambda: self._give_up(use.name),
            GuestRequests(
                self._client,
                self._directory(use.name),
                frozenset(use.copy_out),
                self.times.wish,
            ),
            was_running,
            is_first=not any(u and u.name == use.name for u in self._uses()[:index]),
        )
        if self._is_suspended:
            self.current.start_suspended()
        return self.current

    async def release(self, index: int) -> None:
        """Task `index` is done: its machine ends, unless a later task runs in it."""
        if self.current is not None:
            self.finish_message = self.current.requests.finish_message or self.finish_message
            self._operations = self.operations
        self.current = None
        use = self._job.tasks[index].machine
        if use is None or any(u and u.name == use.name for u in self._uses()[index + 1 :]):
            return
        machine = self._machines.pop(use.name, None)
        if machine is not None:
            await machine.close()
        self._discard(use.name)

    async def _open(self, use: MachineUse) -> TaskMachine:
        """The machine, up. Raises BoincvmError."""
        machine = self._machines.get(use.name)
        if machine is not None:
            return machine
        saved = self._saved.pop(use.name, None)
        image = self._images[use.name] = await in_side_thread(self._open_image, use.image)
        self._held.enter_context(image)
        if saved is not None and saved.image != image.digest:
            raise SavedMachineError("its image has changed since it was saved")
        shape = machine_shape(use, self._around)
        driver = await open_driver(DriverName.QEMU, image.kernel)
        directory = self._directory(use.name)
        spec = MachineSpec(
            directory=directory,
            kernel=image.kernel,
            initrd=image.initrd,
            root=image.root,
            memory=shape.memory,
            cpus=shape.cpus,
            disk_size=shape.disk,
            network=shape.network,
            balloon=not self._client.is_standalone,
        )
        check_room(self._around.slot, shape.memory)
        if saved is None:
            self._discard(use.name)
            directory.mkdir(mode=0o700)
        known = guest_init_data(self._client.init_data, shape.cpus)
        (directory / INIT_DATA).write_bytes(known)
        if saved is None:
            made = driver.machine(spec)
        else:
            made = driver.saved_machine(spec, saved.checkpoint)
            self._kept[use.name] = saved.checkpoint
        machine = TaskMachine(made, LIMITS, saved)
        self._machines[use.name] = machine
        if self._is_suspended:
            await machine.suspend()
        try:
            await machine.start()
        except (HypervisorError, GuestError) as error:
            if saved is None:
                raise
            raise SavedMachineError(
                f"the saved machine {use.name} does not wake: {error.message}"
            ) from error
        if not self._network:
            await machine.connect_network(connected=False)
        self.memory.look()
        return machine

    async def _give_up(self, name: str) -> None:
        """The machine that was saved is of no use; again is harmless."""
        machine = self._machines.pop(name, None)
        if machine is not None:
            await machine.kill()
            await machine.close()
        self._kept.pop(name, None)
        self._discard(name)

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

    # What the client wishes.

    async def apply(self, *, suspended: bool, network: bool) -> None:
        """All machines pause or go on, with network or without."""
        self._is_suspended = suspended
        (self.times.watch.pause if suspended else self.times.watch.resume)()
        if self.current is not None:
            await (self.current.suspend() if suspended else self.current.resume())
        for machine in tuple(self._machines.values()):
            await (machine.suspend() if suspended else machine.resume())
            if network != self._network:
                await machine.connect_network(connected=network)
        self._network = network

    async def keep(self, *, last: bool) -> bool:
        """Puts all machines on disk, if each is where it can go on from; with `last` they end.

        Whether it was done. Raises HypervisorError, GuestError, OSError: then those stay that
        were kept before.
        """
        if self._is_suspended and not last:
            return False
        if not all(machine.is_answering for machine in self._machines.values()):
            return False
        if not self._machines or (self.current is not None and self.current.state() is None):
            return False
        for name, machine in self._machines.items():
            await self._keep(name, machine, last=last)
        return True

    async def _keep(self, name: str, machine: TaskMachine, *, last: bool) -> None:
        task = self.current
        runs_here = task is not None and task.machine is machine
        directory = self._directory(name)
        checkpoint, link, state = await machine.keep(
            lambda: task.state() if task and runs_here else None, last=last
        )
        await in_side_thread(sync_files, directory)
        write_saved(
            directory,
            SavedMachine(
                checkpoint=checkpoint,
                image=self._images[name].digest,
                shape=machine_shape(self._use(name), self._around),
                link=link,
                steps=tuple(machine.steps),
                task=state,
            ),
        )
        former, self._kept[name] = self._kept.get(name), checkpoint
        if former is not None and not last:
            await machine.machine.forget(former)
        log(f"the machine {name} {'sleeps' if last else 'is kept'} on disk")

    async def kill(self) -> None:
        """At once, nothing kept."""
        for machine in tuple(self._machines.values()):
            await machine.kill()

    async def close(self, *, keep: bool) -> None:
        """Ends what runs. `keep`: what was kept of machines stays for the next run."""
        for name, machine in self._machines.items():
            stays = keep and name in self._kept
            await machine.close(keep=stays)
            if not stays:
                self._discard(name)
        self._machines.clear()
        self._held.close()
