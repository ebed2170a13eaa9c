"""A program that runs on the host, all processes that it starts, and their guard."""

import asyncio
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from boincvm.errors import BoincvmError, HostError
from boincvm.host.process_tree import (
    CONTINUE,
    STOP,
    STOP_REQUEST,
    children,
    descendants,
    send,
    signal_tree,
    stop_round,
    usage,
)
from boincvm.host.supervised import GRACE, Supervised, start_supervised, supervised_end
from boincvm.wrapper.tasks.step import TaskEnd

_KILL_LIMIT = 2.5
_MOST_BYTES = 4096
_STOP_PAUSES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)
"""Seconds between checks whether all processes have stopped. On a busy host a process may wait some
tenths of a second for a CPU before it can stop."""


class HostProgram:
    """Runs one program; made by `start`. When it ends, the processes that it leaves are killed.

    If this process dies, even by SIGKILL, the guard (host/supervisor_linux.py) ends all of them.
    """

    def __init__(self, supervised: Supervised, *, stop_signal: int, stops_all: bool) -> None:
        loop = asyncio.get_running_loop()
        self._supervised = supervised
        self._guard, self._control = supervised.guard, supervised.control
        self._program, self._messages = supervised.program, supervised.received
        self._stop_signal = stop_signal
        self._stops_all = stops_all
        self._cpu_time = 0.0
        self._is_terminating = self._is_killed = False
        self._end: asyncio.Future[TaskEnd] = loop.create_future()
        loop.add_reader(self._control, self._listen)

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
        supervised = start_supervised(
            Path(argv[0]),
            argv,
            directory=directory,
            environment=environment,
            streams=(subprocess.DEVNULL if stdin is None else stdin, stdout, stderr),
            nice=nice,
        )
        return cls(
            supervised,
            stop_signal=STOP_REQUEST if use_tstp else STOP,
            stops_all=multi_process or not use_tstp,
        )

    @property
    def process_id(self) -> int:
        return self._program

    async def wait(self) -> TaskEnd:
        """Wait until the program and all of its processes have ended.

        Raises what `start` raises, if the program waited for a stream.
        """
        return await asyncio.shield(self._end)

    @property
    def failure(self) -> BaseException | None:
        """Why the program could not be started after it had waited for a stream."""
        return self._end.exception() if self._end.done() else None

    async def suspend(self) -> None:
        """Suspend all processes: none computes when this returns. Calling it again is harmless."""
        if not self._stops_all:
            if self._program in children(self._guard.pid):
                send(self._program, self._stop_signal)
            return
        signalled: set[int] = set()
        # The kernel has no event for "all have stopped"; usually the second check finds it so.
        # A process that cannot stop now (on a dead network file system, say) stops later.
        for pause in _STOP_PAUSES:
            if self._end.done() or stop_round(self._guard.pid, self._stop_signal, signalled):
                return
            await asyncio.sleep(pause)

    async def resume(self) -> None:
        """Resume all processes. Calling it again is harmless."""
        if not self._end.done():
            signal_tree(self._guard.pid, CONTINUE)

    async def kill(self, grace: float = GRACE) -> None:
        """End all processes: none is left when this returns.

        The program gets SIGTERM first, as from BOINC's wrapper: it may want to write a checkpoint.
        So do the processes that it leaves when it has ended. Whatever is left after `grace` seconds
        is killed. SIGTERM is sent only once: a second one may mean haste.
        """
        if not self._end.done() and not self._is_killed:
            self._ask()
            await self._ends_within(grace)
        if not self._end.done():
            self._is_killed = True
            with suppress(OSError):  # it has just ended
                self._control.shutdown(socket.SHUT_WR)
            if not await self._ends_within(_KILL_LIMIT):
                raise HostError(
                    f"{sum(1 for _ in descendants(self._guard.pid))} processes of the task do"
                    " not end although they were killed",
                    hint="they are waiting for a disk or a network file system that does not"
                    " answer",
                )

    def _ask(self) -> None:
        if self._is_terminating:
            return
        self._is_terminating = True
        with suppress(OSError):  # it has just ended
            self._control.send(b"end\n")
        send(self._guard.pid, CONTINUE)  # somebody may have stopped it

    async def _ends_within(self, seconds: float) -> bool:
        done, _ = await asyncio.wait([self._end], timeout=seconds)
        return bool(done)

    def cpu_time(self) -> float:
        """Return the seconds, user and system, that all processes have used; it never decreases."""
        if not self._end.done():
            self._cpu_time = max(self._cpu_time, usage(self._guard.pid)[0])
        return self._cpu_time

    def resident(self) -> int:
        """Return how many bytes of memory all processes occupy now."""
        return 0 if self._end.done() else usage(self._guard.pid)[1]

    def _listen(self) -> None:
        try:
            data = self._control.recv(_MOST_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self._messages += data
        if not data:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._guard.wait()
            self._conclude()

    def _conclude(self) -> None:
        try:
            end = supervised_end(self._supervised, self._messages)
        except BoincvmError as error:
            self._end.set_exception(error)
            self._end.exception()  # retrieved, because nobody may wait for a daemon
            return
        self._cpu_time = max(self._cpu_time, end.user_time + end.system_time)
        self._end.set_result(TaskEnd(end.code, end.signal))
