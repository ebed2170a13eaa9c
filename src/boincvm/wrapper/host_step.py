"""A task of a job.xml that runs on the host, and the files by which it says how far it is."""

from typing import Self

from boincvm.host.supervised import GRACE
from boincvm.job.boinc_job import TaskDescription
from boincvm.stopwatch import Stopwatch
from boincvm.wrapper.cpu_seconds import CpuSeconds
from boincvm.wrapper.host_task import HostTask
from boincvm.wrapper.slot_files import CheckpointFile, FractionFile
from boincvm.wrapper.step import Step
from boincvm.wrapper.task_plan import HostCommand
from boincvm.wrapper.worker import WorkerEnd


class HostStep(Step):
    """Made by `start`."""

    def __init__(
        self, task: HostTask, fraction: FractionFile | None, checkpoint: CheckpointFile | None
    ) -> None:
        self._task = task
        self._fraction = fraction
        self._checkpoint = checkpoint
        self._watch = Stopwatch()

    @classmethod
    def start(
        cls, description: TaskDescription, command: HostCommand, *, use_tstp: bool, nice: int | None
    ) -> Self:
        """Raises ProgramStartError, InputFileError, OutputFileError, HostError."""
        fraction = FractionFile(command.fraction_done) if command.fraction_done else None
        checkpoint = CheckpointFile(command.checkpoint) if command.checkpoint else None
        task = HostTask.start(
            command.argv,
            directory=command.directory,
            environment=command.environment,
            stdin=command.stdin,
            stdout=command.stdout,
            stderr=command.stderr,
            multi_process=description.multi_process,
            use_tstp=use_tstp,
            nice=nice,
        )
        return cls(task, fraction, checkpoint)

    @property
    def process_id(self) -> int | None:
        return self._task.process_id

    @property
    def failure(self) -> BaseException | None:
        """Why the program, which waited for a stream, could not be started then."""
        return self._task.failure

    @property
    def fraction_done(self) -> float:
        return (self._fraction.read() if self._fraction else None) or 0.0

    def has_checkpointed(self) -> bool:
        return self._checkpoint is not None and self._checkpoint.has_news()

    def seconds(self) -> CpuSeconds:
        used = self._task.cpu_time()
        return CpuSeconds(used, used, self._watch.elapsed)

    def cpu_time(self) -> float:
        return self._task.cpu_time()

    def resident(self) -> int:
        return self._task.resident()

    async def wait(self) -> WorkerEnd:
        return await self._task.wait()

    async def reach(self, seconds: float) -> None:
        await self._watch.reach(seconds)

    async def suspend(self) -> None:
        self._watch.pause()
        await self._task.suspend()

    async def resume(self) -> None:
        await self._task.resume()
        self._watch.resume()

    async def expire(self) -> None:
        await self.kill()

    async def kill(self, grace: float = GRACE) -> None:
        await self._task.kill(grace)
