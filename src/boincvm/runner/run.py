"""`boincvm run`: runs a job without BOINC, with the streams and signals of this process.

The machine starts first; the modules that run a job in it are imported meanwhile.
"""

from boincvm.gc_freeze import late_imports
from boincvm.host.signals import TERMINATION_SIGNALS, block_signals, restore_signal_mask
from boincvm.job.files import check_program
from boincvm.job.model import Job, MachineTask
from boincvm.runner.early_start import EarlyStart
from boincvm.standard_error import write_line


def run_job(
    job: Job[MachineTask],
    *,
    json_output: bool,
    show_progress: bool,
    driver: str | None = None,
    is_verbose: bool = False,
    has_terminal: bool = False,
) -> int:
    """Run `job`; return the exit code. Raises BoincvmError.

    `driver`: the one that the command line asks for (choice.py). `is_verbose`: say which one runs
    the machine, and why. `has_terminal`: each program has one, which is connected to ours.

    With `json_output` one object on standard output describes the result. It includes the program's
    own output (the first MiB of each stream).
    """
    check_program(job)  # before a machine starts
    # Signals wait until the event loop handles them, so that the machine is cleaned up.
    former = block_signals(TERMINATION_SIGNALS)
    try:
        with EarlyStart(job, driver) as early_start:
            if is_verbose and early_start.choice is not None:
                write_line(f"boincvm: {early_start.choice}")
            with late_imports():
                import asyncio

                from boincvm.runner.loop import run_prestarted

            return asyncio.run(
                run_prestarted(
                    job,
                    early_start,
                    json_output=json_output,
                    show_progress=show_progress,
                    has_terminal=has_terminal,
                )
            )
    finally:
        restore_signal_mask(former)
