"""Runs the tasks of a job in order, with the daemons beside them."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from boincvm.boinc import InitData
from boincvm.boinc.exits import remove_end_files
from boincvm.errors import BoincvmError, HostError, TaskFailedError
from boincvm.host.supervised import ABORT_GRACE, GRACE
from boincvm.job.boinc_settings import BoincSettings
from boincvm.job.model import HostTask, Job, MachineTask, Task
from boincvm.side_thread import in_side_thread
from boincvm.wrapper.log import log
from boincvm.wrapper.slot.progress import JobProgress
from boincvm.wrapper.slot.state import STATE_FILE
from boincvm.wrapper.slot.wrapper_checkpoint import CHECKPOINT_FILE
from boincvm.wrapper.tasks.archives import JobArchives
from boincvm.wrapper.tasks.host_step import HostStep
from boincvm.wrapper.tasks.priority import nice_value
from boincvm.wrapper.tasks.resolve import JobContext, host_command
from boincvm.wrapper.tasks.step import Step, TaskEnd

if TYPE_CHECKING:  # a job without machines starts sooner without this
    from boincvm.wrapper.tasks.machines import JobMachines


class TaskSequence:
    """Runs the tasks of a job that are still to be done."""

    def __init__(
        self,
        job: Job[Task],
        settings: BoincSettings,
        context: JobContext,
        machines: "JobMachines | None",
        progress: JobProgress,
        init_data: InitData,
        *,
        use_tstp: bool,
    ) -> None:
        """Take the job and what it runs with.

        `machines`: None if no task runs in one. `use_tstp`: suspend programs on the host by
        SIGTSTP.
        """
        self._job = job
        self._settings = settings
        self._context = context
        self._machines = machines
        self._progress = progress
        self._init_data = init_data
        self._use_tstp = use_tstp
        self._host_steps: list[HostStep] = []
        self._may_start = asyncio.Event()
        self._may_start.set()
        self._index = 0
        self.current: Step | None = None
        """The task that is running."""
        self.is_suspended = False
        self.has_network = True
        self.used = progress.checkpointed
        """What the job had used when its last task of this run ended, in whatever way."""

    # The order of the tasks.

    async def run(self) -> None:
        """Run all tasks to the end of the last one. Raises BoincvmError."""
        job, settings = self._job, self._settings
        archives = JobArchives(settings, self._context)
        first = self._progress.tasks_done
        if self._machines is not None:
            first = self._machines.first_step(first)
            self._progress.begin_with(first)
        if first >= len(job.tasks) and job.tasks:
            log(
                "all tasks of the job are done already; to run them again, remove"
                f" {CHECKPOINT_FILE} and {STATE_FILE}"
            )
        if self._progress.is_first_run:
            await archives.unpack()
            await self._unzip_tasks()
            self._progress.note_first_run()
        async with self._beside(settings.daemons):
            in_machines = (i for i, task in enumerate(job.tasks) if isinstance(task, MachineTask))
            managed = max(in_machines, default=-1)
            async with self._beside(settings.machine_managers if first <= managed else ()):
                for index in range(first, managed + 1):
                    await self._run_task(index)
            for index in range(max(first, managed + 1), len(job.tasks)):
                await self._run_task(index)
        await archives.pack()

    async def _unzip_tasks(self) -> None:
        """Run VMWrapper's unzip tasks, once, before the first task of the first run."""
        for task in self._settings.unzip_tasks:
            step = await self._start_on_host(task)
            _check_end(task, await self._wait(step, task))

    @asynccontextmanager
    async def _beside(self, daemons: Sequence[HostTask]) -> AsyncIterator[None]:
        """Run `daemons` while the block runs, and end them after it."""
        steps: list[HostStep] = []
        try:
            for daemon in daemons:
                step = await self._start_on_host(daemon)
                steps.append(step)
            yield
        finally:
            await _kill_all(steps)
            for step in steps:
                if step.failure is not None:
                    log(f"a daemon was never started: {step.failure}")
                self._host_steps.remove(step)

    async def _run_task(self, index: int) -> None:
        await self._permission()
        task = self._job.tasks[index]
        step = await self._start(index, task)
        self._index, self.current = index, step
        try:
            await self._to_the_end(step, task)
            if self._machines is not None:
                await self._machines.release(index)
            self._progress.task_done(index, step.seconds())
            self.used = self._progress.checkpointed
        except asyncio.CancelledError:
            if isinstance(step, HostStep):
                # It was asked to end, and may have made a checkpoint before it did.
                self.note_checkpoint()
            raise
        finally:
            self.current = None

    async def _start(self, index: int, task: Task) -> Step:
        match task:
            case HostTask():
                return await self._start_on_host(task)
            case MachineTask():
                if self._machines is None:
                    raise RuntimeError("the job has machines, but cannot open them")
                return self._machines.step(index, task)

    async def _to_the_end(self, step: Step, task: Task) -> None:
        try:
            _check_end(task, await self._wait(step, task))
        finally:
            self.used = self._progress.total(step.seconds())

    async def _start_on_host(self, task: HostTask) -> HostStep:
        await self._permission()
        if self._context.signed is None:
            command = host_command(task, self._context)
        else:
            command = await in_side_thread(host_command, task, self._context)
            await self._permission()
        log(f"running {' '.join(command.argv)}")
        step = HostStep.start(task, command, use_tstp=self._use_tstp, nice=self._nice(task))
        self._host_steps.append(step)
        return step

    async def _permission(self) -> None:
        while not self._may_start.is_set():  # it may be cleared again before we wake
            await self._may_start.wait()

    def _nice(self, task: HostTask) -> int | None:
        return nice_value(
            task.priority,
            process_priority=self._init_data.process_priority,
            no_priority_change=self._init_data.no_priority_change,
        )

    async def _wait(self, step: Step, task: Task) -> TaskEnd:
        """Wait until the task has ended; if its time limit ended it, that counts as success."""
        ended = asyncio.ensure_future(step.wait())
        limit = asyncio.ensure_future(step.reach(task.time_limit or math.inf))
        try:
            await asyncio.wait((ended, limit), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
            log(f"{task.name} reached its time limit of {task.time_limit:g} s")
            await step.expire()
            await ended
            return TaskEnd(code=0, signal=None)
        finally:
            for future in (ended, limit):
                future.cancel()
            await asyncio.gather(ended, limit, return_exceptions=True)
            if isinstance(step, HostStep):
                await step.kill()
                self._host_steps.remove(step)
                remove_end_files(self._context.slot)  # of this part of the job, not of all of it

    # Requests from the client.

    async def apply(self, *, suspended: bool, network: bool) -> None:
        """Suspend or resume all that runs; connect or disconnect the machines' network."""
        self.is_suspended, self.has_network = suspended, network
        if suspended:
            self._may_start.clear()
        for step in tuple(self._host_steps):
            await (step.suspend() if suspended else step.resume())
        if self._machines is not None:
            await self._machines.apply(suspended=suspended, network=network)
        if not suspended:
            self._may_start.set()

    @property
    def waits_for_network(self) -> bool:
        """Tell whether the running task's machine has a network that the client suspends."""
        task = self._job.tasks[self._index]
        if self.current is None or not isinstance(task, MachineTask):
            return False
        return self._job.machines[task.machine].network and not self.has_network

    async def save(self) -> None:
        """Save the machines and end them, so that the next run of the wrapper restores them.

        If one cannot be saved, its program is asked to end, like one on the host. Raises the
        BoincvmError or OSError that prevented it.
        """
        try:
            is_saved = await self._save(last=True)
        except (BoincvmError, OSError):
            await self._ask_in_machine()
            raise
        if not is_saved:
            await self._ask_in_machine()

    async def _ask_in_machine(self) -> None:
        if self._machines is not None and self._machines.current is not None:
            await self._machines.current.ask_to_end()

    def losses(self) -> list[str]:
        """Describe what is lost if the job ends now, a line for each machine that is not saved."""
        return self._machines.losses() if self._machines else []

    async def keep_checkpoints(self) -> None:
        """Make checkpoints of the machines periodically and on request, while the job runs."""
        if self._machines is None:
            await asyncio.Future()
            return
        from boincvm.wrapper.control_socket import ControlSocket

        times = self._machines.times
        control = ControlSocket(self._machines.slot, self._take_checkpoint)
        try:
            try:
                await control.open()
            except OSError as refusal:
                log(f"checkpoints of this job cannot be requested: {refusal.strerror or refusal}")
            while True:
                await times.due()
                error: BoincvmError | None = None
                try:
                    if not await self._save(last=False):
                        error = HostError(
                            "the job is suspended, or not at a point from which it could resume"
                        )
                except (BoincvmError, OSError) as fault:
                    log(f"no checkpoint was made, the previous one is kept: {fault}")
                    error = fault if isinstance(fault, BoincvmError) else HostError(str(fault))
                times.conclude(error)
        finally:
            times.end(HostError("the job has ended"))
            await control.close()

    async def _take_checkpoint(self) -> dict[str, object]:
        """Make a checkpoint for the user; return what the user is told about it."""
        if self._machines is None:
            raise HostError("the job has no machine")
        await self._machines.times.order()
        return {"machines": self._machines.describe_checkpoints()}

    def set_clocks(self) -> None:
        """Set the guests' clocks, because the host's has jumped."""
        if self._machines is not None:
            self._machines.set_clocks()

    async def hold_memory(self) -> None:
        """Keep machines within the volunteer's memory preference while the job runs."""
        if self._machines is None:
            await asyncio.Future()
            return
        await self._machines.memory.run()

    def preferences_changed(self) -> None:
        """Take note that the client has changed its init_data.xml."""
        if self._machines is not None:
            self._machines.memory.recheck()

    async def _save(self, *, last: bool) -> bool:
        """Make checkpoints of the machines; tell whether any were made."""
        if self._machines is None or not await self._machines.save(last=last):
            return False
        # A task on the host restarts from its own last checkpoint, even if machines are saved.
        if self.current is not None and not isinstance(self.current, HostStep):
            self._progress.checkpoint(self._index, self.current.seconds())
        return True

    async def kill(self) -> None:
        """End everything immediately, without saving."""
        self._may_start.clear()  # no program follows one that SIGTERM ends successfully
        await self.kill_machines()
        await self.end_on_host(ABORT_GRACE)

    async def kill_machines(self) -> None:
        """End all machines immediately, without saving them."""
        if self._machines is not None:
            await self._machines.kill()

    async def end_on_host(self, grace: float = GRACE) -> None:
        """End all tasks and daemons on the host at the same time."""
        await _kill_all(self._host_steps, grace)

    async def close(self, *, keep: bool) -> None:
        """End what still runs of the job.

        `save`: the checkpoints of its machines remain for the next run.
        """
        await self.end_on_host()
        if self._machines is not None:
            await self._machines.close(keep=keep)

    # Reports to the client.

    def note_checkpoint(self) -> None:
        """Take note of a checkpoint that the program has made itself."""
        if self.current is not None and self.current.has_checkpointed():
            self._progress.checkpoint(self._index, self.current.seconds())

    def fraction_done(self) -> float:
        """Return the fraction of the whole job that is done, from 0 to 1."""
        weights = [task.weight for task in self._job.tasks]
        done = sum(weights[: self._progress.tasks_done])
        if self.current is not None:
            done += weights[self._index] * self.current.fraction_done
        return done / sum(weights)

    @property
    def operations(self) -> tuple[float, float] | None:
        """Floating-point and integer operations that a guest's program reports to have done."""
        return self._machines.operations if self._machines else None

    @property
    def finish_message(self) -> str:
        """The message for the project with which a guest's program finished."""
        return self._machines.finish_message if self._machines else ""

    def resident(self) -> int:
        """Return how many bytes of memory the whole job occupies now."""
        steps: list[Step] = [*self._host_steps]
        if self._machines is not None and self._machines.current is not None:
            steps.append(self._machines.current)
        return sum(step.resident() for step in steps)

    def notify_guest(self) -> None:
        """Tell a guest's program about new trickle-downs and finished uploads."""
        if self._machines is not None and self._machines.current is not None:
            self._machines.current.requests.notify()


def _check_end(task: Task, end: TaskEnd) -> None:
    """Raise TaskFailedError unless `task` succeeded."""
    if end.signal is not None:
        raise TaskFailedError(f"signal {end.signal} killed {task.name}")
    if end.code:
        raise TaskFailedError(f"{task.name} ended with exit code {end.code}")
    log(f"{task.name} ended successfully")


async def _kill_all(steps: Sequence[HostStep], grace: float = GRACE) -> None:
    """End all at the same time.

    Each has some time to end by itself, and the client does not wait long.
    """
    await asyncio.gather(*(step.kill(grace) for step in steps))
