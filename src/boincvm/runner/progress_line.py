"""A line on the terminal that shows progress until the program itself writes something."""

import asyncio
import os
from time import monotonic

from boincvm.runner.job_run import Observer
from boincvm.sizes import format_size
from boincvm.standard_error import show

_TEXTS = {
    "start": "starting the machine",
    "copy in": "copying the inputs in",
    "run": "running",
    "copy out": "copying the outputs out",
}
_CLEAR = "\r\x1b[K"


class ProgressLine(Observer):
    """Draws the line on standard error once a second, by a timer of the event loop."""

    def __init__(self) -> None:
        self._phase = ""
        self._begin = monotonic()
        self._moved = 0
        self._shown = False
        self._timer: asyncio.TimerHandle | None = None
        # The program's own output and our line cannot share a terminal.
        self._is_hidden_in_run = os.isatty(1)

    def phase(self, name: str) -> None:
        self._phase, self._begin, self._moved = name, monotonic(), 0
        self._draw()

    def moved(self, count: int) -> None:
        self._moved += count

    def _draw(self) -> None:
        self._cancel()
        if self._phase == "run" and self._is_hidden_in_run:
            self.clear()
            return
        seconds = monotonic() - self._begin
        line = f"boincvm: {_TEXTS.get(self._phase, self._phase)} {seconds:.0f} s"
        if self._moved:
            line += f", {format_size(self._moved)}"
        show(_CLEAR + line)
        self._shown = True
        self._timer = asyncio.get_running_loop().call_later(1.0, self._draw)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def clear(self) -> None:
        """Remove the line."""
        self._cancel()
        if self._shown:
            show(_CLEAR)
            self._shown = False
