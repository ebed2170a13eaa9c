"""The processes of a task below their supervisor; import it through `task_processes`."""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from boincvm.errors import BoincvmError
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
from boincvm.host.supervised import Stream, SupervisedEnd, start_supervised, supervised_end

_MOST_BYTES = 4096
_STOP_PAUSES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)
"""Seconds between checks whether all processes have stopped. On a busy host a process may wait some
tenths of a second for a CPU before it can stop."""


class TaskProcesses:
    """One program and all that it starts.

    If this process dies, even by SIGKILL, the guard (supervisor_linux.py) ends all of them.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        streams: tuple[Stream, Stream, Stream],
        nice: int | None,
        use_tstp: bool,
        multi_process: bool,
    ) -> None:
        """Start it; see HostProgram.start. Raises what `start_supervised` does."""
        loop = asyncio.get_running_loop()
        self._supervised = start_supervised(
            Path(argv[0]),
            argv,
            directory=directory,
            environment=environment,
            streams=streams,
            nice=nice,
        )
        self.guard, self._control = self._supervised.guard, self._supervised.control
        self.program_id, self._messages = self._supervised.program, self._supervised.received
        self._stop_signal = STOP_REQUEST if use_tstp else STOP
        self._stops_all = multi_process or not use_tstp
        self._is_terminating = False
        self.ended: asyncio.Future[SupervisedEnd] = loop.create_future()
        """Done when the program and all of its processes have ended."""
        loop.add_reader(self._control, self._listen)

    async def suspend(self) -> None:
        """Suspend them: none computes when this returns. Calling it again is harmless."""
        if not self._stops_all:
            if self.program_id in children(self.guard.pid):
                send(self.program_id, self._stop_signal)
            return
        signalled: set[int] = set()
        # The kernel has no event for "all have stopped"; usually the second check finds it so.
        # A process that cannot stop now (on a dead network file system, say) stops later.
        for pause in _STOP_PAUSES:
            if self.ended.done() or stop_round(self.guard.pid, self._stop_signal, signalled):
                return
            await asyncio.sleep(pause)

    async def resume(self) -> None:
        """Resume them. Calling it again is harmless."""
        if not self.ended.done():
            signal_tree(self.guard.pid, CONTINUE)

    def ask_to_end(self) -> bool:
        """Ask them to end, once: a second SIGTERM may mean haste. Returns True: they can."""
        if not self._is_terminating:
            self._is_terminating = True
            with suppress(OSError):  # it has just ended
                self._control.send(b"end\n")
            send(self.guard.pid, CONTINUE)  # somebody may have stopped it
        return True

    def kill(self) -> None:
        """Kill them; `ended` tells when they are gone."""
        with suppress(OSError):  # it has just ended
            self._control.shutdown(socket.SHUT_WR)

    def count(self) -> int:
        """Return how many there are."""
        return sum(1 for _ in descendants(self.guard.pid))

    def usage(self) -> tuple[float, int]:
        """Return the CPU seconds and the resident bytes of those that have not ended."""
        return usage(self.guard.pid)

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
            self.guard.wait()
            try:
                self.ended.set_result(supervised_end(self._supervised, self._messages))
            except BoincvmError as error:
                self.ended.set_exception(error)
                self.ended.exception()  # retrieved, because nobody may wait for a daemon
