"""The part of a run that needs an event loop: the job, and its report."""

import json

from boincvm.errors import BoincvmError
from boincvm.job.model import Job, MachineTask
from boincvm.machine.golden.background import make_in_background
from boincvm.machine.settings import Settings
from boincvm.machine.streams import OutputClosedError
from boincvm.runner.early_start import EarlyStart
from boincvm.runner.interruption import Interruption
from boincvm.runner.job_run import JobRun, Observer
from boincvm.runner.streams import RunStreams
from boincvm.standard_error import write_line

BOOT_HINT = "give it more time with --boot-limit"


async def run_prestarted(
    job: Job[MachineTask],
    early_start: EarlyStart,
    *,
    json_output: bool,
    show_progress: bool,
    has_terminal: bool = False,
) -> int:
    """Run `job` in the machine started early; return the exit code. Raises BoincvmError."""
    streams = RunStreams(job.directory, capture=json_output)
    if has_terminal:
        from boincvm.runner.terminal import TerminalStreams, on_terminal

        job = on_terminal(job)
        streams = TerminalStreams(job.directory, capture=False)
    line = None
    if show_progress:
        from boincvm.runner.progress_line import ProgressLine

        line = ProgressLine(program_has_terminal=has_terminal)
        streams.on_terminal = line.wrote
    job_run = JobRun(job, streams, line or Observer())
    interruption = Interruption(job_run, job.limits.stop)
    failure: BoincvmError | None = None
    try:
        await interruption.run(_run_in_machine(job_run, early_start))
    except BoincvmError as error:
        failure = error
    finally:
        if line is not None:
            line.clear()
    return report_run(job_run, streams, failure, json_output=json_output)


def report_run(
    job_run: JobRun, streams: RunStreams, failure: BoincvmError | None, *, json_output: bool
) -> int:
    """Report how a run ended; return its exit code. Raises `failure` if a person is to read it."""
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
    machine = await prestarted.machine(Settings(job.limits, boot_hint=BOOT_HINT))
    work = job_run.run(machine, prestarted.sources, began_at=early_start.at)
    await (work if early_start.on_demand is None else early_start.on_demand.guard(work))
    if machine.lacks_golden:
        make_in_background(job.machine, early_start.store, machine.driver.name)


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
