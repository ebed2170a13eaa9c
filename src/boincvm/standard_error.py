"""The one place that writes to standard error, which may be closed, full, or read by nobody.

What cannot be written is dropped: reporting an error must not raise another. Nothing is buffered: a
Python stream keeps what it cannot write, and makes the process exit with 120.
"""

import os
import sys
from contextlib import suppress

_PATIENCE = 1000
"""Milliseconds to wait for a reader that made the descriptor non-blocking and does not read."""


def write_line(line: str) -> None:
    """Write `line` and a newline, as far as that works."""
    show(f"{line}\n")


def show(text: str) -> None:
    """Write `text` as it is, as far as that works."""
    stream = sys.stderr
    if stream is None:  # closed when we started
        return
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # somebody has replaced the stream
        with suppress(OSError, ValueError):
            stream.write(text)
            stream.flush()
        return
    data = text.encode(stream.encoding or "utf-8", "backslashreplace")
    with suppress(OSError):
        _write(descriptor, data)


def write(data: bytes) -> None:
    """Write what a program wrote to its own standard error. Raises OSError."""
    if sys.stderr is not None:
        _write(sys.stderr.fileno(), data)


def is_terminal() -> bool:
    """Tell whether standard error is a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:
        return False  # closed in the meantime


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            from boincvm.host.channels import wait_until_writable  # rarely needed

            if not wait_until_writable(descriptor, _PATIENCE):
                raise
