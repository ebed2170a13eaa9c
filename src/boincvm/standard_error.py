"""The one place that writes to standard error: it may be closed, full, or read by nobody.

What cannot be written is dropped, for where an error is told no other may come up. Nothing is
buffered: what a stream of Python's cannot write it keeps, and ends the process with 120 for it.
"""

import os
import sys
from contextlib import suppress

_PATIENCE = 1000
"""Milliseconds for a reader that has made the descriptor non-blocking, and does not read."""


def say(line: str) -> None:
    """Write `line` and a line end, as far as that works."""
    show(f"{line}\n")


def show(text: str) -> None:
    """Write `text` as it is, as far as that works."""
    stream = sys.stderr
    if stream is None:  # it was closed when we started
        return
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # somebody has put a stream of his own there
        with suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()
        return
    data = text.encode(stream.encoding or "utf-8", "backslashreplace")
    with suppress(OSError):
        _write(descriptor, data)


def write(data: bytes) -> None:
    """Write what a program has written to its own standard error. Raises OSError."""
    if sys.stderr is not None:
        _write(sys.stderr.fileno(), data)


def is_terminal() -> bool:
    """Whether a person looks on."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:
        return False  # closed since


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            from boincvm.host.channels import wait_until_writable  # rarely

            if not wait_until_writable(descriptor, _PATIENCE):
                raise
