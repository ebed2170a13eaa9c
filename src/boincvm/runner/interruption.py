"""Ends the work of this process at a signal: its programs first, then its machines."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Protocol

from boincvm.errors import BoincvmError
from boincvm.exit_codes import ExitCode, exit_code_for_signal
from boincvm.host.inherited import not_ignored
from boincvm.host.signals import (
    TERMINATION_SIGNALS,
    add_signal_handlers,
    remove_signal_handlers,
    unblock_signals,
)


class Interruptible(Protocol):
    """Work that passes signals on to its programs."""

    def signal_program(self, number: int) -> bool:
        """Send the signal `number` to the programs that run; tell whether there are any."""


class Interruption:
    """Passes the first signal to the programs; a second one, or a timeout, ends the machines.

    So does an error in a callback of the event loop, which would go unnoticed otherwise.
    """

    def __init__(self, work: Interruptible, stop: float | None) -> None:
        """Take the work; its programs have `stop` seconds to end after a signal.

        None: the work itself limits how long it goes on.
        """
        self._work = work
        self._stop = stop
        self._task: asyncio.Task[None] | None = None
        self._number: int | None = None
        self._fault: BaseException | None = None

    async def run(self, work: Coroutine[None, None, None]) -> None:
        """Run `work`. Raises BoincvmError with code 128+N if signal N ended the run."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._handle_fault)
        self._task = asyncio.ensure_future(work)
        numbers = not_ignored(TERMINATION_SIGNALS)
        add_signal_handlers(numbers, self._receive)
        unblock_signals(TERMINATION_SIGNALS)  # see run.py
        try:
            await asyncio.wait((self._task,))
        finally:
            remove_signal_handlers(numbers)
        if self._fault is not None:
            self._check_result()
            raise self._fault
        if self._number is not None:
            self._check_result()
            code = exit_code_for_signal(self._number)
            name = signal.Signals(self._number).name
            raise BoincvmError(f"ended by {name}", exit_code=ExitCode(code))
        self._task.result()

    def _check_result(self) -> None:
        """Discard the task's exception, because something else is the cause."""
        if self._task is not None and not self._task.cancelled():
            self._task.exception()

    def _receive(self, number: int) -> None:
        if self._number is not None or not self._work.signal_program(number):
            self._end()
        elif self._stop is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self._stop, self._end)
        self._number = self._number or number

    def _handle_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        # An exception that comes with a future is left to the owner of the future.
        if not isinstance(error, BaseException) or "future" in context:
            loop.default_exception_handler(context)
            return
        self._fault = self._fault or error
        self._end()

    def _end(self) -> None:
        # Only once: a second cancellation would interrupt the cleanup after the first.
        if self._task is not None and not self._task.cancelling():
            self._task.cancel()
