"""`boincvm run`: a job with no BOINC, its streams and signals those of this process.

The machine begins first, and what it takes to run a job in it is imported meanwhile.
"""

from boincvm.host.signals import TERMINATION_SIGNALS, block_signals, restore_signal_mask
from boincvm.hypervisor.registry import DEFAULT
from boincvm.job.model import Job, MachineTask
from boincvm.runner.early_start import EarlyStart


def run_job(
    job: Job[MachineTask], *, json_output: bool, show_progress: bool, driver: str = DEFAULT
) -> int:
    """Run `job`; return the exit code. With `json_output` one object on standard output says
    how it went, the program's own output in it (the first MiB of each stream).

    Raises BoincvmError.
    """
    # They wait until there is a loop that heeds them: the machine must be tidied up.
    former = block_signals(TERMINATION_SIGNALS)
    try:
        with EarlyStart(job, driver) as early_start:
            import asyncio

            from boincvm.runner.loop import run_begun

            return asyncio.run(
                run_begun(job, early_start, json_output=json_output, show_progress=show_progress)
            )
    finally:
        restore_signal_mask(former)
