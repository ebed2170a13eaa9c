"""A program that runs on the host, all that it starts, and the guard over them."""

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
_MOST_WORDS = 4096
_STOP_PAUSES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)
"""Seconds between two looks whether all stand still. On a busy host a process may wait some tenths
of a second for a processor before it can stop."""


class HostProgram:
    """Runs one program; made by `start`. When it ends, what it leaves behind is killed.

    Should this process die, be it by SIGKILL, the guard (host/supervisor_linux.py) ends all of it.
    """

    def __init__(self, supervised: Supervised, *, stop_signal: int, stops_all: bool) -> None:
        loop = asyncio.get_running_loop()
        self._supervised = supervised
        self._guard, self._control = supervised.guard, supervised.control
        self._program, self._words = supervised.program, supervised.words
        self._stop_signal = stop_signal
        self._stops_all = stops_all
        self._cpu_time = 0.0
        self._is_asked = self._is_killed = False
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
        """Start a program. Returns when it runs, or waits for the other end of a stream that is a
        FIFO. `argv[0]` is its path, which starts from `directory`; PATH is not searched.

        The environment is all that the program gets. Output files are appended to; without
        them the program shares our streams; its input is empty without a file. `nice`: see
        priority.py. Suspending stops all processes of the task; but with `use_tstp` the
        program is told by SIGTSTP, and only with `multi_process` the others too: it may
        handle the signal and see to them itself. Raises ProgramStartError, InputFileError,
        OutputFileError, HostError.
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
        """Wait until the program has ended and nothing of it is left.

        Raises what `start` raises, where the program waited for a stream.
        """
        return await asyncio.shield(self._end)

    @property
    def failure(self) -> BaseException | None:
        """Why the program, which waited for a stream, could not be started then."""
        return self._end.exception() if self._end.done() else None

    async def suspend(self) -> None:
        """Suspend all: nothing of it computes when this returns; again is harmless."""
        if not self._stops_all:
            if self._program in children(self._guard.pid):
                send(self._program, self._stop_signal)
            return
        told: set[int] = set()
        # The kernel has no event for "all stand still"; usually the second look finds it so.
        # One that cannot stop now, on a dead network file system say, will when it goes on.
        for pause in _STOP_PAUSES:
            if self._end.done() or stop_round(self._guard.pid, self._stop_signal, told):
                return
            await asyncio.sleep(pause)

    async def resume(self) -> None:
        """Let all go on; again is harmless."""
        if not self._end.done():
            signal_tree(self._guard.pid, CONTINUE)

    async def kill(self, grace: float = GRACE) -> None:
        """End all: nothing of it is left when this returns.

        The program is asked by SIGTERM first, as BOINC's wrapper does it: it may want to write a
        checkpoint. So is what it leaves behind when it has ended. All that is left after
        `grace` seconds is killed. Asks once: a second SIGTERM may mean haste."""
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
                    " not end, although they were killed",
                    hint="they wait for a disk or a network file system that does not answer",
                )

    def _ask(self) -> None:
        if self._is_asked:
            return
        self._is_asked = True
        with suppress(OSError):  # it has just ended
            self._control.send(b"end\n")
        send(self._guard.pid, CONTINUE)  # somebody may have stopped it

    async def _ends_within(self, seconds: float) -> bool:
        done, _ = await asyncio.wait([self._end], timeout=seconds)
        return bool(done)

    def cpu_time(self) -> float:
        """Tell the seconds, user and system, that all of it has used; it never goes down."""
        if not self._end.done():
            self._cpu_time = max(self._cpu_time, usage(self._guard.pid)[0])
        return self._cpu_time

    def resident(self) -> int:
        """Tell how many bytes of memory all of it occupies now."""
        return 0 if self._end.done() else usage(self._guard.pid)[1]

    def _listen(self) -> None:
        try:
            data = self._control.recv(_MOST_WORDS)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self._words += data
        if not data:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            self._guard.wait()
            self._conclude()

    def _conclude(self) -> None:
        try:
            end = supervised_end(self._supervised, self._words)
        except BoincvmError as error:
            self._end.set_exception(error)
            self._end.exception()  # of a daemon nobody may wait for it
            return
        self._cpu_time = max(self._cpu_time, end.user_time + end.system_time)
        self._end.set_result(TaskEnd(end.code, end.signal))
