"""A program that runs on the host, all processes that it starts, and their guard."""

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from boincvm.errors import HostError
from boincvm.host.supervised import GRACE
from boincvm.host.task_processes import TaskProcesses
from boincvm.wrapper.tasks.step import TaskEnd

_KILL_LIMIT = 2.5


class HostProgram:
    """Runs one program; made by `start`. When it ends, the processes that it leaves are killed.

    If this process dies, however it dies, all of them are ended.
    """

    def __init__(self, processes: TaskProcesses) -> None:
        self._processes = processes
        self._cpu_time = 0.0
        self._is_killed = False

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        stdin: Path | None,
        stdout: Path | None,
        stderr: Path | None,
        multi_process: bool,
        use_tstp: bool = False,
        nice: int | None = None,
    ) -> Self:
        """Start a program. Its path, `argv[0]`, starts from `directory`; PATH is not searched.

        Returns when the program runs, or while it waits for the other end of a stream that is a
        FIFO. The program gets exactly `environment`. Output files are appended to; without them the
        program shares our streams; without an input file its input is empty. `nice`: see
        priority.py. Suspending stops all processes of the task. With `use_tstp` the program gets
        SIGTSTP, and the other processes only with `multi_process`: the program may handle the
        signal and suspend them itself. Raises ProgramStartError, InputFileError, OutputFileError,
        HostError.
        """
        return cls(
            TaskProcesses(
                argv,
                directory=directory,
                environment=environment,
                streams=(subprocess.DEVNULL if stdin is None else stdin, stdout, stderr),
                nice=nice,
                use_tstp=use_tstp,
                multi_process=multi_process,
            )
        )

    @property
    def process_id(self) -> int:
        return self._processes.program_id

    async def wait(self) -> TaskEnd:
        """Wait until the program and all of its processes have ended.

        Raises what `start` raises, if the program waited for a stream.
        """
        end = await asyncio.shield(self._processes.ended)
        return TaskEnd(end.code, end.signal)

    @property
    def failure(self) -> BaseException | None:
        """Why the program could not be started after it had waited for a stream."""
        ended = self._processes.ended
        return ended.exception() if ended.done() else None

    async def suspend(self) -> None:
        """Suspend all processes: none computes when this returns. Calling it again is harmless."""
        await self._processes.suspend()

    async def resume(self) -> None:
        """Resume all processes. Calling it again is harmless."""
        await self._processes.resume()

    async def kill(self, grace: float = GRACE) -> None:
        """End all processes: none is left when this returns.

        The program gets SIGTERM first, as from BOINC's wrapper: it may want to write a checkpoint.
        So do the processes that it leaves when it has ended. Whatever is left after `grace` seconds
        is killed. SIGTERM is sent only once: a second one may mean haste.
        """
        processes = self._processes
        if not processes.ended.done() and not self._is_killed and processes.ask_to_end():
            await self._ends_within(grace)
        if not processes.ended.done():
            self._is_killed = True
            processes.kill()
            if not await self._ends_within(_KILL_LIMIT):
                raise HostError(
                    f"{processes.count()} processes of the task do not end although they were"
                    " killed",
                    hint="they are waiting for a disk or a network file system that does not"
                    " answer",
                )

    async def _ends_within(self, seconds: float) -> bool:
        done, _ = await asyncio.wait([self._processes.ended], timeout=seconds)
        return bool(done)

    def cpu_time(self) -> float:
        """Return the seconds, user and system, that all processes have used; it never decreases."""
        ended = self._processes.ended
        if not ended.done():
            self._note_cpu_time(self._processes.usage()[0])
        elif ended.exception() is None:
            end = ended.result()
            self._note_cpu_time(end.user_time + end.system_time)
        return self._cpu_time

    def _note_cpu_time(self, seconds: float) -> None:
        self._cpu_time = max(self._cpu_time, seconds)

    def resident(self) -> int:
        """Return how many bytes of memory all processes occupy now."""
        return 0 if self._processes.ended.done() else self._processes.usage()[1]
