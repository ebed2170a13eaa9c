"""The part of a run that needs an event loop: signals, the job, and its report."""

import asyncio
import json
import signal
from collections.abc import Coroutine

from boincvm.errors import BoincvmError
from boincvm.exit_codes import ExitCode, exit_code_for_signal
from boincvm.host.inherited import not_ignored
from boincvm.host.signals import (
    TERMINATION_SIGNALS,
    add_signal_handlers,
    remove_signal_handlers,
    unblock_signals,
)
from boincvm.job.model import Job, MachineTask
from boincvm.machine.golden.background import make_in_background
from boincvm.machine.settings import Settings
from boincvm.machine.streams import OutputClosedError
from boincvm.runner.early_start import EarlyStart
from boincvm.runner.job_run import JobRun, Observer
from boincvm.runner.streams import RunStreams
from boincvm.standard_error import write_line

_BOOT_HINT = "give it more time with --boot-limit"


async def run_prestarted(
    job: Job[MachineTask], early_start: EarlyStart, *, json_output: bool, show_progress: bool
) -> int:
    """Run `job` in the machine started early; return the exit code. Raises BoincvmError."""
    streams = RunStreams(job.directory, capture=json_output)
    line = None
    if show_progress:
        from boincvm.runner.progress_line import ProgressLine

        line = ProgressLine()
    job_run = JobRun(job, streams, line or Observer())
    interruption = _Interruption(job_run)
    failure: BoincvmError | None = None
    try:
        await interruption.run(_run_in_machine(job_run, early_start))
    except BoincvmError as error:
        failure = error
    finally:
        if line is not None:
            line.clear()
    if json_output:
        print(json.dumps(_result(job_run, streams, failure)))
        return failure.exit_code if failure else job_run.outcome.exit_code
    if isinstance(failure, OutputClosedError):
        return failure.exit_code
    if failure is not None:
        raise failure
    if job_run.outcome.is_cold and job_run.outcome.cold_because:
        why = job_run.outcome.cold_because
        write_line(f"boincvm: booted cold: the golden snapshot was unusable: {why}")
    if job_run.outcome.note:
        write_line(f"boincvm: {job_run.outcome.note}")
    return job_run.outcome.exit_code


async def _run_in_machine(job_run: JobRun, early_start: EarlyStart) -> None:
    prestarted = early_start.result()
    job = job_run.job
    machine = await prestarted.machine(Settings(job.limits, boot_hint=_BOOT_HINT))
    await job_run.run(machine, prestarted.sources, began_at=early_start.at)
    if machine.lacks_golden:
        make_in_background(job.machine, early_start.store, machine.driver.name)


class _Interruption:
    """Passes the first signal to the program; a second one, or a timeout, ends the machine.

    So does an error in a callback of the event loop, which would go unnoticed otherwise.
    """

    def __init__(self, job_run: JobRun) -> None:
        self._job_run = job_run
        self._task: asyncio.Task[None] | None = None
        self._number: int | None = None
        self._fault: BaseException | None = None

    async def run(self, work: Coroutine[None, None, None]) -> None:
        """Run `work`. Raises BoincvmError with code 128+N if signal N ended the run."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._handle_fault)
        self._task = asyncio.ensure_future(work)
        numbers = not_ignored(TERMINATION_SIGNALS)
        add_signal_handlers(numbers, self._receive)
        unblock_signals(TERMINATION_SIGNALS)  # see run.py
        try:
            await asyncio.wait((self._task,))
        finally:
            remove_signal_handlers(numbers)
        if self._fault is not None:
            self._check_result()
            raise self._fault
        if self._number is not None:
            self._check_result()
            code = exit_code_for_signal(self._number)
            name = signal.Signals(self._number).name
            raise BoincvmError(f"ended by {name}", exit_code=ExitCode(code))
        self._task.result()

    def _check_result(self) -> None:
        """Discard the task's exception, because something else is the cause."""
        if self._task is not None and not self._task.cancelled():
            self._task.exception()

    def _receive(self, number: int) -> None:
        if self._number is not None or not self._job_run.signal_program(number):
            self._end()
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(self._job_run.job.limits.stop, self._end)
        self._number = self._number or number

    def _handle_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        # An exception that comes with a future is left to whoever holds the future.
        if not isinstance(error, BaseException) or "future" in context:
            loop.default_exception_handler(context)
            return
        self._fault = self._fault or error
        self._end()

    def _end(self) -> None:
        # Only once: a second cancellation would interrupt the cleanup after the first.
        if self._task is not None and not self._task.cancelling():
            self._task.cancel()


def _result(
    job_run: JobRun, streams: RunStreams, failure: BoincvmError | None
) -> dict[str, object]:
    outcome = job_run.outcome
    result: dict[str, object] = {
        "exit_code": int(failure.exit_code if failure else outcome.exit_code),
        "phases": outcome.phases,
        "start": "cold" if outcome.is_cold else "golden",
        "tasks": [end._asdict() for end in outcome.ends],
    }
    if outcome.note:
        result["note"] = outcome.note
    if outcome.cold_because:
        result["cold_because"] = outcome.cold_because
    if failure is not None:
        result["error"] = {
            "message": failure.message,
            "hint": failure.hint,
            "exit_code": int(failure.exit_code),
        }
    for name, sink in streams.captured.items():
        result[name] = sink.data.decode(errors="replace")
        if sink.truncated:
            result[f"{name}_truncated"] = True
    return result
