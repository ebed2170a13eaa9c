"""The tasks of a job.xml in their order, with the daemons beside them."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from boincvm.boinc import InitData
from boincvm.boinc.exits import remove_end_files
from boincvm.errors import BoincvmError, HostError, TaskFailedError
from boincvm.host.supervised import ABORT_GRACE, GRACE
from boincvm.job.boinc_job import BoincJob, TaskDescription
from boincvm.side_thread import in_side_thread
from boincvm.wrapper.client_log import log
from boincvm.wrapper.host_step import HostStep
from boincvm.wrapper.job_archives import JobArchives
from boincvm.wrapper.job_progress import JobProgress
from boincvm.wrapper.priority import nice_value
from boincvm.wrapper.step import Step
from boincvm.wrapper.task_plan import Surroundings, host_command
from boincvm.wrapper.worker import WorkerEnd

if TYPE_CHECKING:  # a job without machines starts sooner without this
    from boincvm.wrapper.machine_steps import MachineSteps


class JobSteps:
    """Runs what is still to be done of `job`; `current` is the task that runs now."""

    def __init__(
        self,
        job: BoincJob,
        around: Surroundings,
        machines: "MachineSteps | None",
        progress: JobProgress,
        init_data: InitData,
        *,
        use_tstp: bool,
    ) -> None:
        self._job = job
        self._around = around
        self._machines = machines
        self._progress = progress
        self._init_data = init_data
        self._use_tstp = use_tstp
        self._host_steps: list[HostStep] = []
        self._may_start = asyncio.Event()
        self._may_start.set()
        self._index = 0
        self.current: Step | None = None
        self.is_suspended = False
        self.has_network = True
        self.used = progress.checkpointed
        """What the job had used when its last task of this run ended, however that was."""

    # The order of things.

    async def run(self) -> None:
        """To the end of the last task. Raises BoincvmError."""
        job = self._job
        archives = JobArchives(job, self._around)
        first = self._progress.tasks_done
        if self._machines is not None:
            first = self._machines.first_step(first)
            self._progress.begin_with(first)
        if self._progress.is_first_run:
            await archives.unpack()
            await self._unzip_tasks()
            self._progress.note_first_run()
        async with self._beside(job.daemons):
            managed = max((i for i, task in enumerate(job.tasks) if task.machine), default=-1)
            async with self._beside(job.machine_managers if first <= managed else ()):
                for index in range(first, managed + 1):
                    await self._run_task(index)
            for index in range(max(first, managed + 1), len(job.tasks)):
                await self._run_task(index)
        await archives.pack()

    async def _unzip_tasks(self) -> None:
        """VMWrapper's: done once, before the first task of the first run."""
        for task in self._job.unzip_tasks:
            step = await self._start_on_host(task)
            self._judge(task, await self._wait(step, task))

    @asynccontextmanager
    async def _beside(self, daemons: Sequence[TaskDescription]) -> AsyncIterator[None]:
        """`daemons` run while the block does, and are ended after it."""
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
        step: Step
        if task.machine is not None and self._machines is not None:
            step = self._machines.step(index)
        else:
            step = await self._start_on_host(task)
        self._index, self.current = index, step
        try:
            await self._to_the_end(step, task)
            if self._machines is not None:
                await self._machines.release(index)
            self._progress.task_done(index, step.seconds())
            self.used = self._progress.checkpointed
        except asyncio.CancelledError:
            if isinstance(step, HostStep):
                self.look()  # it was asked to end, and may have made a checkpoint before it did
            raise
        finally:
            self.current = None

    async def _to_the_end(self, step: Step, task: TaskDescription) -> None:
        try:
            self._judge(task, await self._wait(step, task))
        finally:
            self.used = self._progress.total(step.seconds())

    async def _start_on_host(self, task: TaskDescription) -> HostStep:
        await self._permission()
        if self._around.signed is None:
            command = host_command(task, self._around)
        else:
            command = await in_side_thread(host_command, task, self._around)
            await self._permission()
        log(f"running {' '.join(command.argv)}")
        step = HostStep.start(task, command, use_tstp=self._use_tstp, nice=self._nice(task))
        self._host_steps.append(step)
        return step

    async def _permission(self) -> None:
        while not self._may_start.is_set():  # it may be gone again when we are woken
            await self._may_start.wait()

    def _nice(self, task: TaskDescription) -> int | None:
        return nice_value(
            task.priority,
            process_priority=self._init_data.process_priority,
            no_priority_change=self._init_data.no_priority_change,
        )

    async def _wait(self, step: Step, task: TaskDescription) -> WorkerEnd:
        """The task's end; one that its time limit brought about counts as success."""
        ended = asyncio.ensure_future(step.wait())
        limit = asyncio.ensure_future(step.reach(task.time_limit or math.inf))
        try:
            await asyncio.wait((ended, limit), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return ended.result()
            log(f"{task.application} reached its time limit of {task.time_limit:g} s")
            await step.expire()
            await ended
            return WorkerEnd(code=0, signal=None)
        finally:
            for future in (ended, limit):
                future.cancel()
            await asyncio.gather(ended, limit, return_exceptions=True)
            if isinstance(step, HostStep):
                await step.kill()
                self._host_steps.remove(step)
                remove_end_files(self._around.slot)  # of this part of the job, not of all of it

    def _judge(self, task: TaskDescription, end: WorkerEnd) -> None:
        name = task.application or (task.machine.application_path if task.machine else "")
        if end.signal is not None:
            raise TaskFailedError(f"signal {end.signal} killed {name}")
        if end.code:
            raise TaskFailedError(f"{name} ended with exit code {end.code}")
        log(f"{name} ended well")

    # What the client wishes.

    async def apply(self, *, suspended: bool, network: bool) -> None:
        """Everything that runs is suspended or goes on; machines have network or not."""
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
        """Whether the task that runs is in a machine with a network that the client suspends."""
        machine = self._job.tasks[self._index].machine if self.current is not None else None
        return machine is not None and machine.network and not self.has_network

    async def save(self) -> None:
        """Machines go to sleep on disk, so that the next run of the wrapper wakes them.

        Where one cannot, its program is asked to end, as one of the host is. Raises the
        BoincvmError or OSError that kept it from sleeping.
        """
        try:
            is_kept = await self._keep(last=True)
        except (BoincvmError, OSError):
            await self._ask_in_machine()
            raise
        if not is_kept:
            await self._ask_in_machine()

    async def _ask_in_machine(self) -> None:
        if self._machines is not None and self._machines.current is not None:
            await self._machines.current.ask_to_end()

    def losses(self) -> list[str]:
        """What ending now would cost, a line for each machine that is not on disk."""
        return self._machines.losses() if self._machines else []

    async def keep_checkpoints(self) -> None:
        """Keeps machines on disk from time to time, for as long as the job runs."""
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
                log(f"nobody can ask for a checkpoint of this job: {refusal.strerror or refusal}")
            while True:
                await times.due()
                error: BoincvmError | None = None
                try:
                    if not await self._keep(last=False):
                        error = HostError("the job is suspended, or not at a point to go on from")
                except (BoincvmError, OSError) as fault:
                    log(f"no checkpoint was made, a former one stays: {fault}")
                    error = fault if isinstance(fault, BoincvmError) else HostError(str(fault))
                times.conclude(error)
        finally:
            times.end(HostError("the job has ended"))
            await control.close()

    async def _take_checkpoint(self) -> dict[str, object]:
        """One that the user asks for; what is told of it."""
        if self._machines is None:
            raise HostError("the job has no machine")
        await self._machines.times.order()
        return {"machines": self._machines.kept()}

    def set_clocks(self) -> None:
        """The host's clock has jumped."""
        if self._machines is not None:
            self._machines.set_clocks()

    async def hold_memory(self) -> None:
        """Keeps machines within the volunteer's memory preference, for as long as the job runs."""
        if self._machines is None:
            await asyncio.Future()
            return
        await self._machines.memory.run()

    def preferences_changed(self) -> None:
        """The client's init_data is new."""
        if self._machines is not None:
            self._machines.memory.look()

    async def _keep(self, *, last: bool) -> bool:
        """Whether there was something to keep, and it was kept."""
        if self._machines is None or not await self._machines.keep(last=last):
            return False
        # A task of the host is where its own last checkpoint was, however the machines are kept.
        if self.current is not None and not isinstance(self.current, HostStep):
            self._progress.checkpoint(self._index, self.current.seconds())
        return True

    async def kill(self) -> None:
        """At once, nothing kept."""
        self._may_start.clear()  # a program that ends well by SIGTERM is followed by no other
        if self._machines is not None:
            await self._machines.kill()
        await self.end_on_host(ABORT_GRACE)

    async def end_on_host(self, grace: float = GRACE) -> None:
        """Ends tasks and daemons on the host, all of them at the same time."""
        await _kill_all(self._host_steps, grace)

    async def close(self, *, keep: bool) -> None:
        """Nothing of the job runs any more when this returns. `keep`: what was kept of its
        machines stays for the next run."""
        await self.end_on_host()
        if self._machines is not None:
            await self._machines.close(keep=keep)

    # What the client hears.

    def look(self) -> None:
        """Notes a checkpoint that the program has made of itself."""
        if self.current is not None and self.current.has_checkpointed():
            self._progress.checkpoint(self._index, self.current.seconds())

    def fraction_done(self) -> float:
        """Of the whole job, from 0 to 1."""
        weights = [task.weight for task in self._job.tasks]
        done = sum(weights[: self._progress.tasks_done])
        if self.current is not None:
            done += weights[self._index] * self.current.fraction_done
        return done / sum(weights)

    @property
    def operations(self) -> tuple[float, float] | None:
        """Floating-point and integer operations that a guest's program says it has done."""
        return self._machines.operations if self._machines else None

    @property
    def finish_message(self) -> str:
        """What a guest's program wants the project to read at the end."""
        return self._machines.finish_message if self._machines else ""

    def resident(self) -> int:
        """Bytes of memory that all of the job has now."""
        steps: list[Step] = [*self._host_steps]
        if self._machines is not None and self._machines.current is not None:
            steps.append(self._machines.current)
        return sum(step.resident() for step in steps)

    def tell_guest(self) -> None:
        """The client has news for a guest's program: trickles, uploads that are done."""
        if self._machines is not None and self._machines.current is not None:
            self._machines.current.requests.tell()


async def _kill_all(steps: Sequence[HostStep], grace: float = GRACE) -> None:
    """All at once: each has some time to end by itself, and the client does not wait long."""
    await asyncio.gather(*(step.kill(grace) for step in steps))
