"""A task that runs on the host, and the files by which it reports its progress."""

from typing import Self

from boincvm.host.supervised import GRACE
from boincvm.job.model import HostTask
from boincvm.stopwatch import Stopwatch
from boincvm.wrapper.cpu_seconds import CpuSeconds
from boincvm.wrapper.slot.files import CheckpointFile, FractionFile
from boincvm.wrapper.tasks.host_program import HostProgram
from boincvm.wrapper.tasks.resolve import HostCommand
from boincvm.wrapper.tasks.step import Step, TaskEnd


class HostStep(Step):
    """Runs one task; made by `start`."""

    def __init__(
        self, program: HostProgram, fraction: FractionFile | None, checkpoint: CheckpointFile | None
    ) -> None:
        self._program = program
        self._fraction = fraction
        self._checkpoint = checkpoint
        self._watch = Stopwatch()

    @classmethod
    def start(
        cls, task: HostTask, command: HostCommand, *, use_tstp: bool, nice: int | None
    ) -> Self:
        """Start `command`, which `task` resolves to. `nice`: see priority.py.

        Raises ProgramStartError, InputFileError, OutputFileError, HostError.
        """
        fraction = FractionFile(command.fraction_done) if command.fraction_done else None
        checkpoint = CheckpointFile(command.checkpoint) if command.checkpoint else None
        program = HostProgram.start(
            command.argv,
            directory=command.directory,
            environment=command.environment,
            stdin=command.stdin,
            stdout=command.stdout,
            stderr=command.stderr,
            multi_process=task.multi_process,
            use_tstp=use_tstp,
            nice=nice,
        )
        return cls(program, fraction, checkpoint)

    @property
    def process_id(self) -> int | None:
        return self._program.process_id

    @property
    def failure(self) -> BaseException | None:
        """Why the program could not be started after it had waited for a stream."""
        return self._program.failure

    @property
    def fraction_done(self) -> float:
        return (self._fraction.read() if self._fraction else None) or 0.0

    def has_checkpointed(self) -> bool:
        return self._checkpoint is not None and self._checkpoint.has_news()

    def seconds(self) -> CpuSeconds:
        used = self._program.cpu_time()
        return CpuSeconds(used, used, self._watch.elapsed)

    def resident(self) -> int:
        return self._program.resident()

    async def wait(self) -> TaskEnd:
        return await self._program.wait()

    async def reach(self, seconds: float) -> None:
        await self._watch.reach(seconds)

    async def suspend(self) -> None:
        self._watch.pause()
        await self._program.suspend()

    async def resume(self) -> None:
        await self._program.resume()
        self._watch.resume()

    async def expire(self) -> None:
        await self.kill()

    async def kill(self, grace: float = GRACE) -> None:
        await self._program.kill(grace)
