"""`boincvm run -t`: the program has a terminal in the guest, connected to the user's own."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from boincvm.errors import BoincvmError
from boincvm.exit_codes import ExitCode
from boincvm.guestlink.terminal.local import BEAT, EscapeDetector, size_of
from boincvm.guestlink.terminal.protocol import (
    keys,
    shell_argv,
    shell_environment,
    window_size,
)
from boincvm.host.channels import set_blocking
from boincvm.host.signals import add_signal_handlers, remove_signal_handlers
from boincvm.host.terminal import RESIZE_SIGNAL, raw
from boincvm.job.model import Job, MachineTask
from boincvm.machine.streams import Consumed, Fail, ProgramStreams
from boincvm.runner.streams import RunStreams

if TYPE_CHECKING:
    from boincvm.machine.saved_machine import SavedTask

KEYBOARD = 0
"""The descriptor of the terminal."""
_PIECE = 4096
_ROOM = 16 << 20
"""Bytes of typed or pasted text that wait for a guest that does not read them; more are dropped.

They are read from the terminal all the same: the keys that leave the program are among them.
"""


def on_terminal(
    job: Job[MachineTask], environment: Mapping[str, str] = os.environ
) -> Job[MachineTask]:
    """Return `job` with each program on a terminal of the size of ours."""
    variables, size = shell_environment(environment), size_of(KEYBOARD)
    tasks = (
        task._replace(
            argv=tuple(shell_argv(size, task.argv)),
            environment={**variables, **task.environment},
        )
        for task in job.tasks
    )
    return job._replace(tasks=tuple(tasks))


class TerminalStreams(RunStreams):
    """Streams of programs that `on_terminal` has changed: while one runs, our terminal is raw."""

    @asynccontextmanager
    async def open(
        self,
        task: MachineTask,
        consumed: Consumed,
        fail: Fail,
        *,
        saved: "SavedTask | None" = None,
    ) -> AsyncIterator[ProgramStreams]:
        with raw(KEYBOARD), _typed(fail) as self._keys:
            async with super().open(task, consumed, fail, saved=saved) as streams:
                yield streams

    def _open_stdin(self, task: MachineTask, stack: ExitStack) -> int | None:  # noqa: ARG002
        return self._keys


@contextmanager
def _typed(fail: Fail) -> Iterator[int]:
    """Yield a descriptor from which the guest's end can read what is typed in the block."""
    source, target = os.pipe()
    try:
        set_blocking(target, False)
        with _Keyboard(target, fail).connected():
            yield source
    finally:
        os.close(source)
        os.close(target)


class _Keyboard:
    """Sends keys and the window's size to a pipe, as guestlink/terminal/remote.py reads them."""

    def __init__(self, target: int, fail: Fail) -> None:
        self._target = target
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._leaving = EscapeDetector()
        self._waiting = bytearray()
        self._beat: asyncio.TimerHandle | None = None

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Send what is typed while in the block."""
        resizes = () if RESIZE_SIGNAL is None else (RESIZE_SIGNAL,)
        self._loop.add_reader(KEYBOARD, self._read)
        add_signal_handlers(resizes, lambda _: self._send_size())
        self._send_size()
        try:
            yield
        finally:
            self._loop.remove_reader(KEYBOARD)
            self._loop.remove_writer(self._target)
            remove_signal_handlers(resizes)
            if self._beat is not None:
                self._beat.cancel()

    def _read(self) -> None:
        try:
            data = os.read(KEYBOARD, _PIECE)
        except OSError:  # the terminal is gone
            data = b""
        typed, leaves = self._leaving.feed(data)
        if leaves or not data:
            self._loop.remove_reader(KEYBOARD)
            self._fail(
                BoincvmError(
                    "left the program, which has ended with its machine",
                    exit_code=ExitCode.HUNG_UP,
                )
            )
            return
        self._send(keys(typed))

    def _send_size(self) -> None:
        """Send the window's size, which is a sign of life, too."""
        if self._beat is not None:
            self._beat.cancel()
        self._beat = self._loop.call_later(BEAT, self._send_size)
        with suppress(OSError):  # if the terminal is gone, its end can be read
            self._send(window_size(size_of(KEYBOARD)))

    def _send(self, data: bytes) -> None:
        if len(self._waiting) + len(data) <= _ROOM:
            self._waiting += data
        self._write()

    def _write(self) -> None:
        with suppress(BlockingIOError):
            del self._waiting[: os.write(self._target, self._waiting)]
        if self._waiting:
            self._loop.add_writer(self._target, self._write)
        else:
            self._loop.remove_writer(self._target)
