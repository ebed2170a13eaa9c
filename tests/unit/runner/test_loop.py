"""What ends a run from outside its task: signals, and exceptions in callbacks of the event loop."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from boincvm.errors import BoincvmError
from boincvm.job.model import Job, Limits, MachineTask
from boincvm.runner.interruption import Interruption
from boincvm.runner.job_run import JobRun, Observer
from boincvm.runner.streams import RunStreams

pytestmark = pytest.mark.timeout(30)


class Work:
    """Stands for a run whose program may get signals; `tidied`: its end was undisturbed."""

    def __init__(self, *, has_program: bool = False, stop: float = 60.0) -> None:
        job = Job((MachineTask(("x",)),), Path(), limits=Limits(stop=stop))
        self.job_run = JobRun(job, RunStreams(Path(), capture=True), Observer())
        self.signals: list[int] = []
        self.tidied = False
        if has_program:
            self.job_run.signal_program = self._signal  # type: ignore[method-assign]

    def _signal(self, number: int) -> bool:
        self.signals.append(number)
        return True

    async def run(self) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0.05)
            self.tidied = True


async def interrupted(work: Work, *numbers: int) -> BoincvmError:
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.call_later(0.02, os.kill, os.getpid(), number)
    with pytest.raises(BoincvmError) as failure:
        await Interruption(work.job_run, work.job_run.job.limits.stop).run(work.run())
    return failure.value


async def test_a_signal_before_there_is_a_program() -> None:
    work = Work()
    assert (await interrupted(work, signal.SIGINT)).exit_code == 130
    assert work.tidied


async def test_a_program_that_ignores_a_signal() -> None:
    work = Work(has_program=True, stop=0.05)
    assert (await interrupted(work, signal.SIGTERM)).exit_code == 143
    assert work.signals == [signal.SIGTERM]
    assert work.tidied


async def test_many_signals_do_not_disturb_the_tidying_up() -> None:
    work = Work(has_program=True)
    error = await interrupted(work, *[signal.SIGINT, signal.SIGTERM, signal.SIGHUP] * 3)
    assert error.exit_code in (129, 130, 143)
    assert len(work.signals) == 1
    assert work.tidied


async def test_a_fault_in_a_callback_ends_the_run() -> None:
    work = Work()

    def fault() -> None:
        raise OSError(5, "Input/output error")

    asyncio.get_running_loop().call_later(0.02, fault)
    with pytest.raises(OSError, match="Input/output error"):
        await Interruption(work.job_run, work.job_run.job.limits.stop).run(work.run())
    assert work.tidied
