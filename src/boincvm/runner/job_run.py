"""Runs a job in one machine: copies inputs in, runs tasks in order, copies outputs out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from time import monotonic
from typing import TYPE_CHECKING

from boincvm.errors import LimitError, OutputFileError, ProgramStartError
from boincvm.exit_codes import ExitCode, exit_code_for_signal
from boincvm.guestlink import signals
from boincvm.guestlink.display import shown
from boincvm.guestlink.program import GuestProgram, InterpreterMissingError, ProgramEnd
from boincvm.job.files import check_program, own_program_hint
from boincvm.job.model import Job, MachineTask
from boincvm.machine.job_files import MAXIMUM_OUTPUT, check_files, copy_in, copy_out
from boincvm.machine.limits_reached import check_limits
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.script_line import with_interpreter
from boincvm.machine.session import Session
from boincvm.machine.start_source import StartSource
from boincvm.machine.task_run import RunningProgram, TaskRun
from boincvm.runner.streams import RunStreams
from boincvm.standard_error import write_line
from boincvm.stopwatch import Stopwatch

if TYPE_CHECKING:
    from boincvm.machine.saved_machine import SavedTask  # it imports `hashlib` and more

_KILL_LIMIT = 10.0
"""Seconds that a killed program has to end before its outputs are copied anyway."""


class Outcome:
    """The outcome of a job."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        """Seconds by the phase's name, in order."""
        self.ends: list[ProgramEnd] = []
        """One for each task that ran."""
        self.exit_code: int = ExitCode.SUCCESS
        self.note = ""
        """What the user should know although nothing of ours failed."""
        self.is_cold = True
        """Whether the machine booted instead of starting from the golden snapshot."""
        self.cold_because = ""
        """Why the golden snapshot that exists was not used."""


class Observer:
    """Observes the progress of a run; this one ignores it."""

    def phase(self, name: str) -> None:
        """Take note that the phase `name` begins: start, copy in, run, copy out, and others."""

    def moved(self, count: int) -> None:
        """Take note that `count` more bytes of files have moved."""

    def clear(self) -> None:
        """Remove what is shown, so that a line can be printed."""


class JobRun:
    """Runs `job` once; `outcome` fills as it goes, and remains when an error ends the run."""

    def __init__(
        self,
        job: Job[MachineTask],
        streams: RunStreams,
        observer: Observer,
        *,
        results: Path | None = None,
        saved: SavedTask | None = None,
    ) -> None:
        """Take the job; `results`: where its outputs go, if not to the job's directory.

        `saved`: the task that was running when the machine was saved, from which the job goes on.
        """
        self.job = job
        self._saved = saved
        self._number = 0
        self._watch = Stopwatch(saved.wall if saved else 0.0)
        """The running time of the current task."""
        self._results = results or job.directory
        self.outcome = Outcome()
        self._streams = streams
        self._observer = observer
        self._run: TaskRun | None = None
        self._missing: list[str] = []
        self._interrupted = False
        self._has_run = False

    async def run(
        self,
        machine: ManagedMachine,
        sources: Sequence[StartSource],
        *,
        began_at: float | None = None,
        keeps_files: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start `machine` from the first of `sources` that works, run the job, and end the machine.

        `began_at`: when the start began, by the monotonic clock, if it already has. `keeps_files`
        is asked at the end whether the machine's files stay. Raises BoincvmError; how the program
        itself ended is in `outcome`.
        """
        try:
            self.check_files()
            with self._phase("start", began_at):
                await machine.start(sources)
            if (access := machine.remote_desktop) is not None:
                write_line(
                    f"boincvm: remote desktop: {access.protocol} at {access.address}:{access.port},"
                    f" user {access.user}, password {access.password}"
                )
            await self.run_in(machine)
        finally:
            self.outcome.is_cold = machine.is_cold
            self.outcome.cold_because = machine.cold_because
            await machine.close(keep=keeps_files())

    def check_files(self) -> None:
        """Check the files on the host before anybody waits for a machine.

        Raises InputFileError, OutputFileError, ProgramStartError.
        """
        if self._saved is None:  # otherwise they are in the machine
            check_program(self.job)
            check_files(self.job.directory, self.job.inputs, ())
        check_files(self._results, (), self.job.outputs)

    async def run_in(self, machine: ManagedMachine) -> None:
        """Run the job in `machine`, which has started and runs on afterwards, like `run`."""
        await machine.guard(self._run_in(machine))

    async def _run_in(self, machine: ManagedMachine) -> None:
        session = machine.session
        first = self._saved.number if self._saved is not None else 0
        if self.job.inputs and self._saved is None:
            with self._phase("copy in"):
                await self._copy_in(session)
        limit: LimitError | None = None
        with self._phase("run"):
            try:
                for number, task in enumerate(self.job.tasks[first:], first):
                    self._number = number
                    if not await self._run_task(machine, task):
                        break
            except LimitError as error:
                limit = error
        self._has_run = True
        if self.job.outputs:
            with self._phase("copy out"):
                await self._copy_out(session, failed=limit is not None)
        if limit is not None:
            message = "; ".join((limit.message, *self._missing))
            raise LimitError(message, hint=limit.hint, exit_code=limit.exit_code)
        self.outcome.note = "; ".join(filter(None, (self.outcome.note, *self._missing)))

    @contextmanager
    def _phase(self, name: str, began_at: float | None = None) -> Iterator[None]:
        self._observer.phase(name)
        begin = monotonic() if began_at is None else began_at
        try:
            yield
        finally:
            self.outcome.phases[name] = round(monotonic() - begin, 3)

    async def _copy_in(self, session: Session) -> None:
        job = self.job
        await copy_in(session, job.directory, job.inputs, self._observer.moved)

    async def _copy_out(self, session: Session, *, failed: bool) -> None:
        """Copy out all outputs that exist.

        Raises OutputFileError if one is missing, unless the program `failed` or ended with an
        error.
        """
        streams = [file for task in self.job.tasks for file in (task.stdout, task.stderr) if file]
        missing = await copy_out(
            session,
            self._results,
            self.job.outputs,
            maximum_bytes=self.job.machine.disk or MAXIMUM_OUTPUT,
            progress=self._observer.moved,
            taken=[PurePosixPath(file) for file in streams],
        )
        self._note_missing(missing, failed=failed)

    def _note_missing(self, missing: OutputFileError | None, *, failed: bool) -> None:
        """Raise `missing` if the program should have written it; otherwise report it at the end."""
        if missing is None:
            return
        if not failed and self.outcome.exit_code == ExitCode.SUCCESS:
            raise missing
        self._missing.append(missing.message)

    async def _run_task(self, machine: ManagedMachine, task: MachineTask) -> bool:
        """Run `task`; tell whether the job may continue."""
        saved, self._saved = self._saved, None
        if saved is None:
            self._watch = Stopwatch()
        open_streams = partial(self._streams.open, saved=saved)
        self._run = run = TaskRun(machine.session, task, self.job.directory, open_streams)
        rest = None
        if task.time_limit is not None:
            rest = max(task.time_limit - self._watch.elapsed, 0.0)
        wait = partial(_wait, (rest, self.job.limits.stop))
        try:
            if saved is None:
                await run.prepare()
                end, is_late = await run.run(wait)
            else:
                running = RunningProgram(saved.program, saved.stdin)
                end, is_late = await run.go_on(running, machine.wake, wait)
        except ProgramStartError as error:
            if error.exit_code == ExitCode.NO_SUCH_PROGRAM:
                error.hint = own_program_hint(self.job, task) or error.hint
            if isinstance(error, InterpreterMissingError):
                inputs = (*self.job.inputs, *task.inputs)
                raise with_interpreter(error, task, self.job.directory, inputs) from error
            raise
        finally:
            self._run = None
        missing = await run.conclude()
        if end is not None:
            self.outcome.ends.append(end)
        if end is None or is_late:
            self._note_missing(missing, failed=True)
            raise LimitError(
                f"the program ran longer than its limit of {task.time_limit:g} s",
                hint="allow more with --time-limit",
                exit_code=ExitCode.TIME_LIMIT_EXCEEDED,
            )
        self._check_end(task, end)
        self._note_missing(missing, failed=False)
        return self.outcome.exit_code == ExitCode.SUCCESS and not self._interrupted

    def _check_end(self, task: MachineTask, end: ProgramEnd) -> None:
        """Set the exit code. Raises LimitError if a limit of the machine made the program fail."""
        outcome = self.outcome
        name = shown(PurePosixPath(task.name))
        outcome.exit_code = end.code or ExitCode.SUCCESS
        if end.signal is not None:
            outcome.exit_code = exit_code_for_signal(end.signal)
        if outcome.exit_code != ExitCode.SUCCESS:
            options = ("--memory", "--disk")
            check_limits(end, task.name, self.job.machine.memory, options)
        if end.signal is not None:
            known = signals.name_of(end.signal)
            note = f"signal {end.signal} ({known})" if known else f"signal {end.signal}"
            outcome.note = f"{note} killed {name}"

    def state(self) -> SavedTask | None:
        """Return what the job goes on from when its machine is saved now, while the guest is quiet.

        None: no program runs, so it cannot go on from here.
        """
        if self._run is None:
            return None
        return self._run.state(self._number, wall=self._watch.elapsed)

    @property
    def has_run(self) -> bool:
        """Tell whether its last program has ended, so that only its files have yet to come back."""
        return self._has_run

    def signal_program(self, number: int) -> bool:
        """Send the signal `number` to the running program; no task follows it then.

        Returns False if no program is running.
        """
        program = self._run.program if self._run is not None else None
        if program is None:
            return False
        self._interrupted = True
        program.signal(number)
        return True


async def _wait(
    limits: tuple[float | None, float], program: GuestProgram
) -> tuple[ProgramEnd | None, bool]:
    """Wait for `program` to end; return how it ended, and whether it ran too long.

    `limits`: seconds until the program gets SIGTERM, and seconds from then until it is killed. The
    end is None if even that does not end it.
    """
    run, stop = limits
    end = asyncio.ensure_future(program.wait())
    try:
        await asyncio.wait((end,), timeout=run)
        if end.done():
            return end.result(), False
        for number, patience in ((signals.TERMINATE, stop), (signals.KILL, _KILL_LIMIT)):
            program.signal(number)
            await asyncio.wait((end,), timeout=patience)
            if end.done():
                return end.result(), True
        return None, True
    finally:
        end.cancel()
        await asyncio.gather(end, return_exceptions=True)
