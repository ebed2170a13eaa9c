"""What runs the items of a sweep: one after the other, in a machine of its own."""

from pathlib import Path
from typing import Protocol

from boincvm.errors import BoincvmError, HostDiskFullError
from boincvm.job.model import Job, MachineTask
from boincvm.machine.errors import NotEnoughRoomError
from boincvm.machine.managed import ManagedMachine
from boincvm.runner.job_run import JobRun, Observer
from boincvm.runner.streams import RunStreams
from boincvm.runner.sweep_results import ItemEnd, failed
from boincvm.runner.worker_machine import MakeMachine, WorkerMachine


class WorkerLostError(Exception):
    """A worker cannot run its item, but another one may."""

    def __init__(self, cause: BoincvmError, end: ItemEnd | None = None) -> None:
        """Take the cause; `end`: how the item ends if it may be what has lost the machine."""
        super().__init__(cause.message)
        self.cause = cause
        self.end = end


class Worker(Protocol):
    """Runs items: for each `check`, `prepare` and `run`."""

    def check(self, job: Job[MachineTask], results: Path, /) -> None:
        """Check what can be checked without a machine.

        `results`: the directory for what the item prints and makes. Raises UsageError,
        InputFileError, OutputFileError, ProgramStartError.
        """

    async def prepare(self) -> None:
        """Wait for a machine. Raises WorkerLostError, and BoincvmError for what ends the sweep."""

    async def run(self, job: Job[MachineTask], end: ItemEnd, /) -> ItemEnd:
        """Run the job of an item; return `end` with how that went.

        Raises WorkerLostError, HostDiskFullError.
        """

    def signal_program(self, number: int, /) -> bool:
        """Send the signal `number` to the running program; return False if none is running."""

    async def close(self) -> None:
        """Release the machine; `prepare` gets another one. Idempotent."""


class Traffic(Observer):
    """Counts the bytes of files that move in each phase of a run."""

    def __init__(self) -> None:
        self.bytes = {"copy in": 0, "copy out": 0}
        self._phase = ""

    def phase(self, name: str) -> None:
        self._phase = name

    def moved(self, count: int) -> None:
        self.bytes[self._phase] = self.bytes.get(self._phase, 0) + count


class MachineWorker:
    """A worker with a machine of this host that is its own."""

    def __init__(self, make: MakeMachine) -> None:
        self._own = WorkerMachine(make)
        self._machine: ManagedMachine | None = None
        self._results = Path()
        self._run: JobRun | None = None

    @property
    def lacks_golden(self) -> bool:
        """Tell whether one of its machines booted for lack of a golden snapshot."""
        return self._own.lacks_golden

    def check(self, job: Job[MachineTask], results: Path, /) -> None:
        self._results = results
        self._job_run(job, Traffic()).check_files()

    async def prepare(self) -> None:
        try:
            self._machine = await self._own.ready()
        except NotEnoughRoomError as error:
            raise WorkerLostError(error) from error

    async def run(self, job: Job[MachineTask], end: ItemEnd, /) -> ItemEnd:
        machine = self._machine
        assert machine is not None  # noqa: S101 - for the type checker
        traffic = Traffic()
        self._run = run = self._job_run(job, traffic)
        try:
            await run.run_in(machine)
        except HostDiskFullError:
            raise
        except BoincvmError as error:
            end = failed(end, error)
        else:
            end = _with_outcome(end, run)
        finally:
            self._run = None
        if end.is_misbehaved or not machine.is_up:
            await self.close()
        return end._replace(sent=traffic.bytes["copy in"], received=traffic.bytes["copy out"])

    def _job_run(self, job: Job[MachineTask], traffic: Traffic) -> JobRun:
        streams = RunStreams(self._results, capture=False)
        return JobRun(job, streams, traffic, results=self._results)

    def signal_program(self, number: int, /) -> bool:
        return self._run is not None and self._run.signal_program(number)

    async def close(self) -> None:
        self._machine = None
        await self._own.close()


def _with_outcome(end: ItemEnd, run: JobRun) -> ItemEnd:
    outcome = run.outcome
    number = next((ended.signal for ended in outcome.ends if ended.signal is not None), 0)
    return end._replace(
        exit_code=outcome.exit_code,
        signal=number,
        message=outcome.note,
        is_misbehaved=number != 0 or any(ended.out_of_memory_kills for ended in outcome.ends),
    )
