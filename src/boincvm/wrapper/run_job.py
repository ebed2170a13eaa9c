"""A job, run to its end in one machine: inputs in, tasks in order, outputs out."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from time import monotonic

from boincvm.errors import LimitError, OutputFileError
from boincvm.exit_codes import ExitCode, exit_code_for_signal
from boincvm.guestlink import signals
from boincvm.guestlink.get import all_of, check_destination, get_tree
from boincvm.guestlink.guest_paths import ENVIRONMENT, WORK
from boincvm.guestlink.program import STDIN_WINDOW, GuestProgram, ProgramEnd
from boincvm.guestlink.put import check_source, put_tree
from boincvm.guestlink.reports import shown
from boincvm.job.model import Job, Task
from boincvm.machine.limits_reached import check_limits
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.session import Session
from boincvm.machine.start_source import StartSource
from boincvm.wrapper.streams import Source
from boincvm.wrapper.task_streams import StreamPlan

_KILL_LIMIT = 10.0
"""Seconds in which a killed program must have ended, before its outputs are looked for anyhow."""
MAXIMUM_OUTPUT = 1 << 40
"""Bytes that one output may claim to have, where the job does not bound the disk."""


class Outcome:
    """How the job went. `phases`: seconds by name, in order; `ends`: one for each task run;
    `note`: what a person should know though nothing failed of ours. `is_cold`: the machine
    booted; `cold_because`: why no copy of the golden snapshot that there is could be used."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.ends: list[ProgramEnd] = []
        self.exit_code: int = ExitCode.SUCCESS
        self.note = ""
        self.is_cold = True
        self.cold_because = ""


class Observer:
    """Is told what goes on; this one does nothing with it."""

    def phase(self, name: str) -> None:
        """`name` begins: start, copy in, run, copy out."""

    def moved(self, count: int) -> None:
        """`count` more bytes of files have moved."""


class JobRun:
    """One run of `job`; `outcome` fills as it goes, and stays when an error ends the run."""

    def __init__(self, job: Job, plan: StreamPlan, observer: Observer) -> None:
        self.job = job
        self.outcome = Outcome()
        self._plan = plan
        self._observer = observer
        self._program: GuestProgram | None = None
        self._interrupted = False

    async def run(
        self,
        machine: ManagedMachine,
        sources: Sequence[StartSource],
        *,
        began_at: float | None = None,
    ) -> None:
        """Start `machine` from the first of `sources` that works, run the job, and end it.

        `began_at`: when its start began, if it has, by the monotonic clock. Raises BoincvmError;
        how the program itself ended is in `outcome`.
        """
        try:
            self._check_files()
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
        missing = ""
        if self.job.outputs:
            with self._phase("copy out"):
                missing = await self._copy_out(session, failed=limit is not None)
        if limit is not None:
            message = f"{limit.message}; {missing}" if missing else limit.message
            raise LimitError(message, hint=limit.hint, exit_code=limit.exit_code)
        self.outcome.note = "; ".join(filter(None, (self.outcome.note, missing)))

    @contextmanager
    def _phase(self, name: str, began_at: float | None = None) -> Iterator[None]:
        self._observer.phase(name)
        begin = monotonic() if began_at is None else began_at
        try:
            yield
        finally:
            self.outcome.phases[name] = round(monotonic() - begin, 3)

    # Files.

    def _check_files(self) -> None:
        """What cannot go in or be brought back is told before anybody waits for the machine."""
        for item in self.job.inputs:
            check_source(self.job.directory, item.source)
        for output in self.job.outputs:
            check_destination(self.job.directory, output.destination)

    async def _copy_in(self, session: Session) -> None:
        for item in self.job.inputs:
            await put_tree(
                session.link,
                session.window,
                item.source,
                item.destination,
                directory=self.job.directory,
                progress=self._observer.moved,
            )

    async def _copy_out(self, session: Session, *, failed: bool) -> str:
        """Brings back all that is there, and names each output that is not. Raises OutputFileError
        where one is missing, unless the program `failed` or ended with an error."""
        missing: list[OutputFileError] = []
        for item in self.job.outputs:
            try:
                await get_tree(
                    session.link,
                    session.window,
                    item.source,
                    item.destination,
                    directory=self.job.directory,
                    maximum_bytes=self.job.machine.disk or MAXIMUM_OUTPUT,
                    progress=self._observer.moved,
                )
            except OutputFileError as error:
                missing.append(error)
        if not missing:
            return ""
        all_missing = all_of(missing)
        if not failed and self.outcome.exit_code == ExitCode.SUCCESS:
            raise all_missing
        return all_missing.message

    # Tasks.

    async def _run_task(self, session: Session, task: Task) -> bool:
        """Whether the job may go on."""
        source: Source | None = None

        def stdin_taken(count: int) -> None:
            if source is not None:
                source.add_room(count)

        with self._plan.open(task, self.job.directory, session.fail) as streams:
            program = GuestProgram(
                session.link,
                task.argv,
                directory=str(WORK / (task.directory or "")),
                environment={**ENVIRONMENT, **task.environment},
                output=streams.write,
                on_stdin_room=stdin_taken,
            )
            streams.taken = program.grant
            self._program = program
            if streams.stdin is None:
                program.end_input()
            else:
                source = Source(
                    streams.stdin, program.feed, program.end_input, STDIN_WINDOW, session.fail
                )
            try:
                end, is_late = await self._wait(program)
                await streams.flush()
            finally:
                self._program = None
                if source is not None:
                    source.close()
        if end is not None:
            self.outcome.ends.append(end)
        if end is None or is_late:
            raise LimitError(
                f"the program ran longer than its limit of {self.job.limits.run:g} s",
                hint="give it more with --time-limit",
                exit_code=ExitCode.TIME_LIMIT_EXCEEDED,
            )
        self._judge(task, end)
        return self.outcome.exit_code == ExitCode.SUCCESS and not self._interrupted

    async def _wait(self, program: GuestProgram) -> tuple[ProgramEnd | None, bool]:
        """How it ended, and whether it had run for too long: then it is asked to end by SIGTERM,
        and killed when its time to do so is over. None if even so it does not end."""
        end = asyncio.ensure_future(program.wait())
        try:
            await asyncio.wait((end,), timeout=self.job.limits.run)
            if end.done():
                return end.result(), False
            for number, patience in (
                (signals.TERMINATE, self.job.limits.stop),
                (signals.KILL, _KILL_LIMIT),
            ):
                program.signal(number)
                await asyncio.wait((end,), timeout=patience)
                if end.done():
                    return end.result(), True
            return None, True
        finally:
            end.cancel()
            await asyncio.gather(end, return_exceptions=True)

    def _judge(self, task: Task, end: ProgramEnd) -> None:
        """The exit code, and the limits that may lie behind it."""
        outcome = self.outcome
        name = shown(PurePosixPath(task.argv[0]))
        outcome.exit_code = end.code or ExitCode.SUCCESS
        if end.signal is not None:
            outcome.exit_code = exit_code_for_signal(end.signal)
        if outcome.exit_code != ExitCode.SUCCESS:
            options = ("--memory", "--disk")
            check_limits(end, task.argv[0], self.job.machine.memory, options)
        if end.signal is not None:
            outcome.note = f"signal {end.signal} ({_signal_name(end.signal)}) killed {name}"

    def signal_program(self, number: int) -> bool:
        """Hands `number` to the program that runs, the job's last then; False where none does."""
        if self._program is None:
            return False
        self._interrupted = True
        self._program.signal(number)
        return True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown here"
