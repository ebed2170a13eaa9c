"""Each step that a person sees has a name and a time; steps nest.

[ 2.9 s] fetching the packages
[ 6.1 s]   unpacking 58 packages
[ 9.4 s] making the root's tree
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Writes steps to `stream` as they end; on a terminal also while they last."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._live = stream is not None and stream.isatty()
        self._depth = 0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Name and time what happens within; a step that fails is said to have failed."""
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

    def _live_line(self, text: str) -> None:
        if self._live and self._stream is not None:
            self._stream.write(f"\r\x1b[K{text}")
            self._stream.flush()

    def _line(self, started: float, text: str) -> None:
        if self._stream is None:
            return
        start = "\r\x1b[K" if self._live else ""
        self._stream.write(f"{start}[{time.monotonic() - started:5.1f} s] {text}\n")
        self._stream.flush()


def to_standard_error() -> Progress:
    return Progress(sys.stderr)
