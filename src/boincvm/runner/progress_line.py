"""A line on the terminal that shows progress until the program itself writes something."""

import os
from time import monotonic

from boincvm.runner.job_run import Observer
from boincvm.runner.status_line import StatusLine
from boincvm.sizes import format_size

_TEXTS = {
    "check": "checking the saved machine",
    "start": "starting the machine",
    "copy in": "copying the inputs in",
    "run": "running",
    "copy out": "copying the outputs out",
    "save": "saving the machine",
}


class ProgressLine(Observer):
    """Shows the current phase of a run."""

    def __init__(self) -> None:
        self._phase = ""
        self._begin = monotonic()
        self._moved = 0
        self._line = StatusLine(self._text)
        # The program's own output and our line cannot share a terminal.
        self._is_hidden_in_run = os.isatty(1)

    def phase(self, name: str) -> None:
        self._phase, self._begin, self._moved = name, monotonic(), 0
        if name == "run" and self._is_hidden_in_run:
            self.clear()
        else:
            self._line.draw()

    def moved(self, count: int) -> None:
        self._moved += count

    def _text(self) -> str:
        seconds = monotonic() - self._begin
        line = f"boincvm: {_TEXTS.get(self._phase, self._phase)} {seconds:.0f} s"
        return line + (f", {format_size(self._moved)}" if self._moved else "")

    def clear(self) -> None:
        """Remove the line."""
        self._line.clear()
