"""A task that runs in a machine under the BOINC client.

It is saved with the machine, and continues in another run of the wrapper.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

from boincvm.errors import (
    GuestError,
    HypervisorError,
    HypervisorKilledError,
    OutputFileError,
)
from boincvm.guestlink import signals
from boincvm.guestlink.program import GuestProgram, InterpreterMissingError, ProgramEnd, Usage
from boincvm.guestlink.status_channel import StatusMessage
from boincvm.host.supervised import GRACE
from boincvm.job.model import MachineTask
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.limits_reached import check_limits
from boincvm.machine.saved_machine import SavedTask
from boincvm.machine.script_line import with_interpreter
from boincvm.machine.streams import Consumed, Fail, ProgramStreams
from boincvm.machine.task_run import Listeners, RunningProgram, TaskRun
from boincvm.stopwatch import Stopwatch
from boincvm.wrapper.cpu_seconds import CpuSeconds
from boincvm.wrapper.log import log
from boincvm.wrapper.slot.files import last_number
from boincvm.wrapper.slot.streams import open_streams
from boincvm.wrapper.tasks.guest_requests import GuestRequests
from boincvm.wrapper.tasks.machine_start import TaskMachine
from boincvm.wrapper.tasks.step import Step, TaskEnd


class MachineStep(Step):
    """Runs one task; its machine may serve other tasks, too."""

    def __init__(
        self,
        index: int,
        task: MachineTask,
        slot: Path,
        open_machine: Callable[[], Awaitable[TaskMachine]],
        give_up: Callable[[], Awaitable[None]],
        requests: GuestRequests,
        sizes_at_begin: Callable[[], dict[str, int]],
        saved: SavedTask | None,
        *,
        is_first: bool,
    ) -> None:
        """Take the job's task number `index`; `task` has physical paths.

        `open_machine` starts the machine, and `give_up` removes an unusable one. `sizes_at_begin`:
        the sizes of the output files when the task first began, by stream. `saved`: where the
        program was when the machine was saved. `is_first`: no earlier task has run in the machine.
        """
        self._index = index
        self._task = task
        self._slot = slot
        self._open_machine = open_machine
        self._give_up = give_up
        self.requests = requests
        self._sizes_at_begin = sizes_at_begin
        self._saved = saved
        self._machine: TaskMachine | None = None
        self._run: TaskRun | None = None
        self._watch = Stopwatch(saved.wall if saved else 0.0)
        self._guest = saved.guest if saved else 0.0
        self._host_before = 0.0
        self._fraction = saved.fraction_done if saved else 0.0
        self._is_first = is_first
        self._is_expired = False

    # Reports to the client.

    @property
    def fraction_done(self) -> float:
        fraction = self.requests.fraction_done
        return self._fraction if fraction is None else fraction

    def has_checkpointed(self) -> bool:
        return False  # what a program saves in its machine is lost with the machine

    def seconds(self) -> CpuSeconds:
        before = self._saved
        return CpuSeconds(
            guest=self._guest - (before.guest if before else 0.0),
            host=self._machine.host_seconds() - self._host_before if self._machine else 0.0,
            wall=self._watch.elapsed - (before.wall if before else 0.0),
        )

    def resident(self) -> int:
        return self._machine.resident() if self._machine else 0

    @property
    def machine(self) -> TaskMachine | None:
        """The machine in which the task runs, or None before it is up."""
        return self._machine

    @property
    def process_id(self) -> int | None:
        return self._machine.process_id if self._machine else None

    # Requests from the client. The machine itself is paused by its owner.

    def start_suspended(self) -> None:
        """Take note that the client wants the task suspended before it has begun."""
        self._watch.pause()

    async def suspend(self) -> None:
        self._watch.pause()

    async def resume(self) -> None:
        self._watch.resume()

    async def reach(self, seconds: float) -> None:
        await self._watch.reach(seconds)

    async def expire(self) -> None:
        self._is_expired = True
        if self._run is not None and self._run.program is None:
            self._run.kill()
        await self.ask_to_end()

    async def ask_to_end(self) -> None:
        """End the program, if it runs: by SIGTERM, then by SIGKILL after GRACE seconds of running.

        A task on the host ends the same way.
        """
        program, machine = self._run.program if self._run else None, self._machine
        if program is None or machine is None or machine.is_saved or not machine.is_answering:
            return
        program.signal(signals.TERMINATE)
        ended = asyncio.ensure_future(program.wait())
        limit = asyncio.ensure_future(self._watch.reach(self._watch.elapsed + GRACE))
        try:
            await asyncio.wait((ended, limit), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                program.signal(signals.KILL)
        finally:
            for future in (ended, limit):
                future.cancel()
            await asyncio.gather(ended, limit, return_exceptions=True)

    async def kill(self) -> None:
        if self._machine is not None:
            await self._machine.kill()

    def state(self) -> SavedTask | None:
        """Return what `saved` must be when the machine wakes.

        None if the program does not run: the task cannot continue from here, and starts over.
        """
        if self._run is None:
            return None
        return self._run.state(
            self._index,
            wall=self._watch.elapsed,
            guest=self._guest,
            fraction_done=self.fraction_done,
        )

    # Running the task.

    async def wait(self) -> TaskEnd:
        """Run the task to its end; a saved program that cannot continue starts over.

        Raises BoincvmError; SavedMachineError if more than this task was lost.
        """
        try:
            return await self._do()
        except SavedMachineError as error:
            await self._give_up()
            if self._saved is None or not self._is_first:
                raise
            log(f"{error.message}: the task starts over")
            self._saved, self._machine = None, None
            self._guest, self._fraction = 0.0, 0.0
            return await self._do()

    async def _do(self) -> TaskEnd:
        self._machine = machine = await self._open_machine()
        # The boot counts for the first task in a machine.
        self._host_before = machine.host_seconds() if machine.steps and not self._saved else 0.0
        if self._saved is None:
            machine.steps.append(self._index)
        return await machine.guard(self._run_in(machine))

    async def _run_in(self, machine: TaskMachine) -> TaskEnd:
        run = TaskRun(
            machine.session,
            self._task,
            self._slot,
            self._open_streams,
            Listeners(self._handle_status_messages, self._note_usage, self._note_fraction),
            log,
        )
        if self._saved is None:
            await run.prepare(replace=len(machine.steps) > 1)
        self._run = run
        if self._is_expired:  # while its files were copied in
            run.kill()
        serving = asyncio.ensure_future(self.requests.serve(machine.session))
        try:
            end = await self._run_program(machine, run)
        finally:
            self._run = None
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        self._guest = end.user_time + end.system_time
        await self.requests.finish(machine.session)
        if self.requests.temporary_exit is not None:
            raise self.requests.temporary_exit
        missing = await run.conclude()
        self._check_end(end, missing, machine.size)
        return TaskEnd(code=end.code, signal=end.signal)

    def _open_streams(
        self, task: MachineTask, consumed: Consumed, fail: Fail
    ) -> AbstractAsyncContextManager[ProgramStreams]:
        saved = self._saved
        if saved is None:
            return open_streams(task, consumed, fail, sizes=self._sizes_at_begin())
        return open_streams(task, consumed, fail, stdin_offset=saved.stdin, sizes=saved.files)

    async def _run_program(self, machine: TaskMachine, run: TaskRun) -> ProgramEnd:
        if self._saved is None:
            try:
                return await run.run(GuestProgram.wait)
            except InterpreterMissingError as error:
                task = self._task
                raise with_interpreter(error, task, self._slot, task.inputs) from error
        running = RunningProgram(self._saved.program, self._saved.stdin)
        return await run.go_on(running, partial(_wake, machine), GuestProgram.wait)

    def _check_end(self, end: ProgramEnd, missing: OutputFileError | None, memory: int) -> None:
        """Raise LimitError if a machine's limit made the program fail; `missing` if it succeeded.

        A program that failed need not have written all of its outputs.
        """
        failed = end.code != 0 and not self._is_expired
        if missing is not None:
            if not failed:
                raise missing
            log(missing.message)
        if failed:
            check_limits(end, self._task.name, memory, ("memory_mb", "disk_mb"))

    # What the program reports.

    def _handle_status_messages(self, messages: Sequence[StatusMessage], count: int) -> None:
        for word in messages:
            self.requests.handle(word)
        if self._run is not None:
            self._run.grant(count)

    def _note_usage(self, usage: Usage) -> None:
        self._guest = usage.user_time + usage.system_time

    def _note_fraction(self, _path: str, _modified: int, tail: bytes) -> None:
        number = last_number(tail)
        if number is not None:
            self.requests.fraction_done = min(max(number, 0.0), 1.0)


async def _wake(machine: TaskMachine) -> None:
    """Wake the saved guest. Raises SavedMachineError, HypervisorKilledError."""
    try:
        await machine.wake()
    except HypervisorKilledError:
        raise  # the saved machine is as good as before
    except (GuestError, HypervisorError) as error:
        raise SavedMachineError(f"the saved guest does not resume: {error.message}") from error
