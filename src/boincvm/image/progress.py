"""Named and timed steps, shown to a person; steps nest.

[ 2.9 s] fetching the packages
[ 6.1 s]   unpacking 58 packages
[ 9.4 s] making the root's tree
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from boincvm import standard_error
from boincvm.host.signals import TERMINATION_SIGNALS, block_signals

_PERIOD = 1.0
"""Seconds after which the time that a step has taken so far is shown again."""


class Progress:
    """Passes each step to `show` when it ends; if `is_live`, for a terminal, also while it runs.

    With a `period` in seconds it then shows how long the step has taken, too.
    """

    def __init__(
        self,
        show: Callable[[str], object] | None,
        *,
        is_live: bool = False,
        period: float | None = None,
    ) -> None:
        self._show = show or (lambda _text: None)
        self._live = is_live
        self._period = period if is_live else None
        self._depth = 0
        self._shown = threading.Lock()  # held while something is shown
        self._running: list[tuple[float, str]] = []
        """When each open step began, and what is shown of it."""
        self._names: list[str] = []
        """What is shown of each open step without a detail."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Name and time the block as a step; a step that fails is shown as failed."""
        started = time.monotonic()
        text = f"{'  ' * self._depth}{name}"
        with self._clock():
            self._begin(started, text)
            self._depth += 1
            try:
                yield
            except BaseException:
                self._end(started, f"{text}: failed")
                raise
            finally:
                self._depth -= 1
            self._end(started, text)

    def detail(self, text: str) -> None:
        """Show on a terminal what the current step is doing."""
        line = f"{'  ' * self._depth}{text}"
        with self._shown:
            if self._running:
                self._running[-1] = (self._running[-1][0], line)
            self._live_line(f"[ ...   ] {line}")

    def end_detail(self) -> None:
        """Show the current step's name again in place of a detail."""
        with self._shown:
            if self._running and self._running[-1][1] != self._names[-1]:
                self._running[-1] = (self._running[-1][0], self._names[-1])
                self._live_line(f"[ ...   ] {self._names[-1]}")

    def note(self, text: str) -> None:
        """Show a line that stays."""
        start = "\r\x1b[K" if self._live else ""
        with self._shown:
            self._show(f"{start}[ note  ] {'  ' * self._depth}{text}\n")

    def _begin(self, started: float, text: str) -> None:
        with self._shown:
            self._running.append((started, text))
            self._names.append(text)
            self._live_line(f"[ ...   ] {text}")

    def _end(self, started: float, text: str) -> None:
        start = "\r\x1b[K" if self._live else ""
        with self._shown:
            self._running.pop()
            self._names.pop()
            self._show(f"{start}[{time.monotonic() - started:5.1f} s] {text}\n")

    def _live_line(self, text: str) -> None:
        if self._live:
            self._show(f"\r\x1b[K{text}")

    @contextmanager
    def _clock(self) -> Iterator[None]:
        """Show the time that the innermost step has taken, from the outermost step's begin on."""
        if self._period is None or self._depth:
            yield
            return
        over = threading.Event()
        clock = threading.Thread(target=self._show_time, args=(over, self._period), daemon=True)
        clock.start()
        try:
            yield
        finally:
            over.set()
            clock.join()

    def _show_time(self, over: threading.Event, period: float) -> None:
        block_signals(TERMINATION_SIGNALS)  # one that the main thread holds back must not come here
        while not over.wait(period):
            with self._shown:
                if self._running:
                    started, text = self._running[-1]
                    self._live_line(f"[{time.monotonic() - started:5.0f} s] {text}")


def to_standard_error() -> Progress:
    is_terminal = standard_error.is_terminal()
    return Progress(standard_error.show, is_live=is_terminal, period=_PERIOD)
