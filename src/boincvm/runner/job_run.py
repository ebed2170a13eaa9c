"""Runs a job in one machine: copies inputs in, runs tasks in order, copies outputs out."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath
from time import monotonic

from boincvm.errors import LimitError, OutputFileError
from boincvm.exit_codes import ExitCode, exit_code_for_signal
from boincvm.guestlink import signals
from boincvm.guestlink.display import shown
from boincvm.guestlink.program import GuestProgram, ProgramEnd
from boincvm.job.model import Job, MachineTask
from boincvm.machine.job_files import MAXIMUM_OUTPUT, check_files, copy_in, copy_out
from boincvm.machine.limits_reached import check_limits
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.session import Session
from boincvm.machine.start_source import StartSource
from boincvm.machine.task_run import TaskRun
from boincvm.runner.streams import RunStreams

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
        """Take note that the phase `name` begins: start, copy in, run, copy out."""

    def moved(self, count: int) -> None:
        """Take note that `count` more bytes of files have moved."""


class JobRun:
    """Runs `job` once; `outcome` fills as it goes, and remains when an error ends the run."""

    def __init__(self, job: Job[MachineTask], streams: RunStreams, observer: Observer) -> None:
        self.job = job
        self.outcome = Outcome()
        self._streams = streams
        self._observer = observer
        self._run: TaskRun | None = None
        self._missing: list[str] = []
        self._interrupted = False

    async def run(
        self,
        machine: ManagedMachine,
        sources: Sequence[StartSource],
        *,
        began_at: float | None = None,
    ) -> None:
        """Start `machine` from the first of `sources` that works, run the job, and end the machine.

        `began_at`: when the start began, by the monotonic clock, if it already has. Raises
        BoincvmError; how the program itself ended is in `outcome`.
        """
        try:
            check_files(self.job.directory, self.job.inputs, self.job.outputs)
            with self._phase("start", began_at):
                await machine.start(sources)
            await machine.guard(self._run_in(machine.session))
        finally:
            self.outcome.is_cold = machine.is_cold
            self.outcome.cold_because = machine.cold_because
            await machine.close()

    async def _run_in(self, session: Session) -> None:
        if self.job.inputs:
            with self._phase("copy in"):
                await self._copy_in(session)
        limit: LimitError | None = None
        with self._phase("run"):
            try:
                for task in self.job.tasks:
                    if not await self._run_task(session, task):
                        break
            except LimitError as error:
                limit = error
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
        missing = await copy_out(
            session,
            self.job.directory,
            self.job.outputs,
            maximum_bytes=self.job.machine.disk or MAXIMUM_OUTPUT,
            progress=self._observer.moved,
        )
        self._note_missing(missing, failed=failed)

    def _note_missing(self, missing: OutputFileError | None, *, failed: bool) -> None:
        """Raise `missing` if the program should have written it; otherwise report it at the end."""
        if missing is None:
            return
        if not failed and self.outcome.exit_code == ExitCode.SUCCESS:
            raise missing
        self._missing.append(missing.message)

    async def _run_task(self, session: Session, task: MachineTask) -> bool:
        """Run `task`; tell whether the job may continue."""
        self._run = run = TaskRun(session, task, self.job.directory, self._streams.open)
        limits = task.time_limit, self.job.limits.stop
        try:
            await run.prepare()
            end, is_late = await run.run(partial(_wait, limits))
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
            outcome.note = f"signal {end.signal} ({_signal_name(end.signal)}) killed {name}"

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


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown here"
