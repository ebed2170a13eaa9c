"""Named and timed steps, shown to a person; steps nest.

[ 2.9 s] fetching the packages
[ 6.1 s]   unpacking 58 packages
[ 9.4 s] making the root's tree
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from boincvm import standard_error


class Progress:
    """Passes each step to `show` when it ends; if `is_live`, for a terminal, also while it runs."""

    def __init__(self, show: Callable[[str], object] | None, *, is_live: bool = False) -> None:
        self._show = show or (lambda _text: None)
        self._live = is_live
        self._depth = 0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Name and time the block as a step; a step that fails is shown as failed."""
        started = time.monotonic()
        indent = "  " * self._depth
        self._live_line(f"[ ...   ] {indent}{name}")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._line(started, f"{indent}{name}: failed")
            raise
        finally:
            self._depth -= 1
        self._line(started, f"{indent}{name}")

    def detail(self, text: str) -> None:
        """Show on a terminal what the current step is doing."""
        self._live_line(f"[ ...   ] {'  ' * self._depth}{text}")

    def note(self, text: str) -> None:
        """Show a line that stays."""
        start = "\r\x1b[K" if self._live else ""
        self._show(f"{start}[ note  ] {'  ' * self._depth}{text}\n")

    def _live_line(self, text: str) -> None:
        if self._live:
            self._show(f"\r\x1b[K{text}")

    def _line(self, started: float, text: str) -> None:
        start = "\r\x1b[K" if self._live else ""
        self._show(f"{start}[{time.monotonic() - started:5.1f} s] {text}\n")


def to_standard_error() -> Progress:
    return Progress(standard_error.show, is_live=standard_error.is_terminal())
