"""The machines of a job under a BOINC client: which task runs in which, and how long they live.

A machine's files are in the slot, in `boincvm-machine-N/`, mode 0700; N is the index of the
machine's name in the order of the job file.
"""

import time
from pathlib import Path, PurePosixPath

from boincvm.durations import format_duration
from boincvm.guestlink.host_name import host_name
from boincvm.image.store import Image
from boincvm.job.model import InputFile, Job, MachineTask, Task
from boincvm.machine.checkpoint_schedule import CheckpointSchedule
from boincvm.machine.checkpointing import Identity, write_checkpoint
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.host_capacity import check_checkpoint_room, check_room
from boincvm.machine.job_files import check_files
from boincvm.machine.saved_machine import (
    SavedMachine,
    discard_machine,
    find_saved,
    remove_unneeded,
)
from boincvm.machine.spec import machine_spec
from boincvm.side_thread import in_side_thread
from boincvm.sizes import format_size
from boincvm.wrapper.log import log
from boincvm.wrapper.memory_limit import MemoryLimit
from boincvm.wrapper.slot.state import sizes_at_begin
from boincvm.wrapper.slot.streams import output_files
from boincvm.wrapper.tasks.guest_requests import GuestRequests, Messenger
from boincvm.wrapper.tasks.machine_start import INIT_DATA, MachineStarter, TaskMachine
from boincvm.wrapper.tasks.machine_step import MachineStep
from boincvm.wrapper.tasks.resolve import JobContext, physical_task


class JobMachines:
    """Opens, shares, saves and removes the machines of `job`."""

    def __init__(self, job: Job[Task], context: JobContext, client: Messenger) -> None:
        self._job = job
        self._context = context
        self._client = client
        self._names = list(job.machines)
        self._machines: dict[str, TaskMachine] = {}
        self._images: dict[str, Image] = {}
        self._saved: dict[str, SavedMachine] = {}
        self._last_saved: dict[str, SavedMachine] = {}
        self._unsaved_since: dict[str, float] = {}  # by the watch that stops while suspended
        self._opening = MachineStarter(context, client, self._machines, self._is_suspended_now)
        self._is_suspended = False
        self._network = True
        self.memory = MemoryLimit(lambda: client.init_data, self._machines)
        self.times = CheckpointSchedule(client.init_data.checkpoint_period)
        self.current: MachineStep | None = None
        self._operations: tuple[float, float] | None = None
        self.finish_message = ""

    def _is_suspended_now(self) -> bool:
        return self._is_suspended

    def _tasks_of(self, name: str) -> list[int]:
        """Return the indices of the tasks that run in the machine."""
        return [
            index
            for index, task in enumerate(self._job.tasks)
            if isinstance(task, MachineTask) and task.machine == name
        ]

    @property
    def slot(self) -> Path:
        return self._context.slot

    def describe_checkpoints(self) -> list[dict[str, object]]:
        """Describe the last checkpoint of each machine, for the user."""
        return [
            {
                "machine": name,
                "checkpoint": saved.checkpoint.number,
                "written": saved.checkpoint.written,
                "pause": round(saved.checkpoint.pause, 4),
            }
            for name, saved in self._last_saved.items()
        ]

    def _directory(self, name: str) -> Path:
        return self._context.slot / f"boincvm-machine-{self._names.index(name)}"

    @property
    def operations(self) -> tuple[float, float] | None:
        """Floating-point and integer operations, from the last program that reported any."""
        operations = self.current.requests.operations if self.current else None
        return operations or self._operations

    # Where to begin.

    def first_step(self, done: int) -> int:
        """Return the index of the task to begin with when `done` tasks are done.

        A machine that is lost takes with it what its tasks did in it, so they are done again,
        unless no later task needs the machine.
        """
        first = done
        for name in self._names:
            steps = self._tasks_of(name)
            if steps[-1] < done:
                self._discard(name)
                continue
            saved = self._read_saved(name, steps)
            if saved is not None:
                self._saved[name] = saved
                first = min(first, _first_after(saved, steps, done))
            elif steps[0] < done:
                log(f"the machine {name} is lost: its tasks start over")
                first = min(first, steps[0])
        return first

    def _read_saved(self, name: str, steps: list[int]) -> SavedMachine | None:
        """Return the machine's newest usable checkpoint; without one, remove the machine's files.

        Logs what was lost.
        """
        directory = self._directory(name)
        found = find_saved(directory)
        for line in found.lost:
            log(f"the machine {name}: {line}")
        saved = found.saved
        if saved is None:
            if directory.exists():
                lost = "has no usable checkpoint"
                log(f"the machine {name} {lost if found.lost else 'ended before it was saved'}")
        elif saved.shape != self._job.machines[name]:
            log(f"the saved machine {name} cannot be used: the job now requires a different one")
        elif not set(saved.steps) <= set(steps):
            log(f"the saved machine {name} cannot be used: another job saved it")
        else:
            if found.lost:
                age = format_duration(max(0.0, time.time() - saved.made))
                log(
                    f"the machine {name} resumes from checkpoint {saved.checkpoint.number},"
                    f" which was made {age} ago"
                )
            return saved
        self._discard(name)
        return None

    def _discard(self, name: str) -> None:
        discard_machine(self._directory(name))

    # Tasks.

    def step(self, index: int, task: MachineTask) -> MachineStep:
        """Return a step for `task`, the job's task `index`. Raises JobFileError, InputFileError."""
        name, slot = task.machine, self._context.slot
        saved = self._saved.get(name)
        was_running = saved.task if saved and saved.task and saved.task.number == index else None
        uploads = frozenset(output.source for output in task.outputs)
        physical = physical_task(task, self._context)
        check_files(slot, physical.inputs, ())
        if not self._client.is_standalone:
            known = InputFile(self._directory(name) / INIT_DATA, PurePosixPath(INIT_DATA))
            physical = physical._replace(inputs=(known, *physical.inputs))
        self.current = MachineStep(
            index,
            physical,
            slot,
            lambda: self._open(name),
            lambda: self._give_up(name),
            GuestRequests(self._client, self._directory(name), uploads, self.times.suggest),
            lambda: sizes_at_begin(slot, index, output_files(physical)),
            was_running,
            is_first=self._tasks_of(name)[0] == index,
        )
        if self._is_suspended:
            self.current.start_suspended()
        return self.current

    async def release(self, index: int) -> None:
        """Take note that task `index` is done; end its machine unless a later task needs it."""
        if self.current is not None:
            is_last = index == len(self._job.tasks) - 1
            self.finish_message = self.current.requests.finish_message if is_last else ""
            self._operations = self.operations
        self.current = None
        task = self._job.tasks[index]
        if not isinstance(task, MachineTask) or self._tasks_of(task.machine)[-1] > index:
            return
        machine = self._machines.pop(task.machine, None)
        if machine is not None:
            await machine.close()
        self._discard(task.machine)

    async def _open(self, name: str) -> TaskMachine:
        """Return the machine; start it unless it is up. Raises BoincvmError."""
        shape = self._job.machines[name]
        machine = self._machines.get(name)
        if machine is not None:
            return machine
        await self._opening.bring_qemu()
        saved = self._saved.pop(name, None)
        image = self._images[name] = await self._opening.image(shape.image)
        if saved is not None and saved.image != image.digest:
            raise SavedMachineError("its image has changed since it was saved")
        spec = machine_spec(shape, image, self._directory(name))
        # The workunit's name is the same on every host that runs it, so it reveals
        # nothing about this one, and programs that print it produce the same output.
        own_name = host_name(self._client.init_data.work_unit_name or name)
        spec = spec._replace(balloon=not self._client.is_standalone, host_name=own_name)
        check_room(self._context.slot, shape.memory)
        if saved is not None:
            self._last_saved[name] = saved
        machine = await self._opening.open(name, spec, image, self._job.driver_request(name), saved)
        self._unsaved_since[name] = self.times.watch.elapsed
        if not self._network:
            await machine.connect_network(connected=False)
        self.memory.recheck()
        return machine

    async def _give_up(self, name: str) -> None:
        """Remove the machine, whose checkpoint is unusable. Calling it again is harmless."""
        machine = self._machines.pop(name, None)
        if machine is not None:
            await machine.kill()
            await machine.close()
        self._last_saved.pop(name, None)
        self._discard(name)

    # Requests from the client.

    async def apply(self, *, suspended: bool, network: bool) -> None:
        """Suspend or resume all machines, and connect or disconnect their network."""
        self._is_suspended = suspended
        (self.times.watch.pause if suspended else self.times.watch.resume)()
        if self.current is not None:
            await (self.current.suspend() if suspended else self.current.resume())
        for machine in tuple(self._machines.values()):
            await (machine.suspend() if suspended else machine.resume())
            if network != self._network:
                await machine.connect_network(connected=network)
        self._network = network

    def set_clocks(self) -> None:
        """Give running guests the host's time; a suspended one gets it when it resumes."""
        for machine in self._machines.values():
            machine.set_clock()

    async def save(self, *, last: bool) -> bool:
        """Make a checkpoint of each machine if all can be resumed; tell whether that was done.

        With `last` the machines end. Raises HypervisorError, GuestError, OSError: the former
        checkpoints remain then.
        """
        if self._is_suspended and not last:
            return False
        if not all(machine.can_be_saved for machine in self._machines.values()):
            return False
        if not self._machines or (self.current is not None and self.current.state() is None):
            return False
        for name, machine in tuple(self._machines.items()):
            await self._save(name, machine, last=last)
        return True

    async def _save(self, name: str, machine: TaskMachine, *, last: bool) -> None:
        task = self.current
        runs_here = task is not None and task.machine is machine
        directory, former = self._directory(name), self._last_saved.get(name)
        if not last:
            self._check_room(machine, former)
        saved_at = self.times.watch.elapsed
        saved, _ = await write_checkpoint(
            machine,
            Identity(self._images[name].digest, self._job.machines[name]),
            lambda: (task.state() if task and runs_here else None, None),
            last=last,
            steps=machine.steps,
        )
        self._last_saved[name] = saved
        if last:
            del self._unsaved_since[name]
        else:
            self._unsaved_since[name] = saved_at
        in_use = frozenset() if last else machine.files_in_use()
        await in_side_thread(remove_unneeded, directory, in_use=in_use)
        log(
            f"the machine {name} {'sleeps' if last else 'is kept'} on disk:"
            f" {format_size(saved.checkpoint.written)} written,"
            f" it was paused for {saved.checkpoint.pause * 1e3:.0f} ms"
        )

    def losses(self) -> list[str]:
        """Describe what is lost if the machines end now, a line for each."""
        lines = []
        for name, since in self._unsaved_since.items():
            if name not in self._machines:
                continue
            seconds = round(self.times.watch.elapsed - since, 1)
            lost = f"{format_duration(seconds)} of its running time are lost"
            saved = self._last_saved.get(name)
            origin = (
                f"resumes from checkpoint {saved.checkpoint.number}" if saved else "starts over"
            )
            lines.append(f"the machine {name} {origin}: {lost}")
        return lines

    def _check_room(self, machine: TaskMachine, former: SavedMachine | None) -> None:
        needed = machine.resident()
        if former is not None:  # only what has changed since
            needed = max(needed // 4, 2 * former.checkpoint.written)
        bound = self._client.init_data.disk_bound
        check_checkpoint_room(machine.spec.directory, needed, self._context.slot, bound)

    async def kill(self) -> None:
        """End all machines immediately, without saving them."""
        for machine in tuple(self._machines.values()):
            await machine.kill()

    async def close(self, *, keep: bool) -> None:
        """End what runs. `save`: the machines' checkpoints remain for the next run."""
        for name, machine in self._machines.items():
            stays = keep and name in self._last_saved
            await machine.close(keep=stays)
            if not stays:
                self._discard(name)
        self._machines.clear()
        await self._opening.close()


def _first_after(saved: SavedMachine, steps: list[int], done: int) -> int:
    """Return the index of the task to continue with in the machine as it was saved.

    `steps`: all tasks of the machine.
    """
    if saved.task is not None:
        return saved.task.number
    return min([step for step in steps if step not in saved.steps], default=done)
