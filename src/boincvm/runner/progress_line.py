"""A line on the terminal that shows progress, and gives way to what the program writes there."""

import asyncio
import os
import stat
from time import monotonic

from boincvm.host.terminal import is_background_job
from boincvm.runner.job_run import Observer
from boincvm.runner.status_line import StatusLine
from boincvm.sizes import format_size
from boincvm.standard_error import show

SILENCE = 10.0
"""Seconds without a program's output on the terminal, after which the line says that it runs."""
_PERIOD = 1.0
_STDOUT, _STDERR = 1, 2
_TEXTS = {
    "check": "checking the saved machine",
    "start": "starting the machine",
    "copy in": "copying the inputs in",
    "run": "running",
    "copy out": "copying the outputs out",
    "save": "saving the machine",
}


class ProgressLine(Observer):
    """Shows the current phase of a run.

    While the program runs it can have the terminal, too: the line comes only after a silence, not
    behind a line that has no end yet, and not from the background; what is typed there stays. If
    its output goes through a pipe, another program may write to the terminal, which nobody tells
    us: then its run has no line.
    """

    def __init__(self, *, program_has_terminal: bool = False) -> None:
        """`program_has_terminal`: the program draws on it as it likes, so its run has no line."""
        self._phase = ""
        self._begin = monotonic()
        self._moved = 0
        self._line = StatusLine(self._text)
        self._has_line_in_run = not (program_has_terminal or _is_pipe(_STDOUT))
        self._is_line_whole = True
        self._is_shown = False
        self._timer: asyncio.TimerHandle | None = None

    def phase(self, name: str) -> None:
        self.clear()
        self._phase, self._begin, self._moved = name, monotonic(), 0
        if name != "run":
            if self._is_line_whole:
                self._line.draw()
        elif self._has_line_in_run:
            self._call_later(SILENCE if os.isatty(_STDOUT) else 0.0)

    def moved(self, count: int) -> None:
        self._moved += count

    def wrote(self, data: bytes) -> None:
        """Note what the program is about to write to our terminal."""
        self.clear()
        self._is_line_whole = data.endswith(b"\n")
        if self._phase == "run" and self._has_line_in_run:
            self._call_later(SILENCE)

    def _text(self) -> str:
        seconds = monotonic() - self._begin
        line = f"boincvm: {_TEXTS.get(self._phase, self._phase)} {seconds:.0f} s"
        return line + (f", {format_size(self._moved)}" if self._moved else "")

    def _call_later(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._draw_in_run)

    def _draw_in_run(self) -> None:
        self._call_later(_PERIOD)
        if not self._is_line_whole or is_background_job(_STDERR):
            return
        # The cursor goes back to what was typed behind the line.
        show(f"\x1b7\r{self._text()}\x1b8" if self._is_shown else f"\r\x1b[K{self._text()}")
        self._is_shown = True

    def clear(self) -> None:
        """Remove the line."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_shown:
            show("\r\x1b[K")
            self._is_shown = False
        self._line.clear()


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:  # it is closed
        return False
