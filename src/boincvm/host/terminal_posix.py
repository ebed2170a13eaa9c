"""The user's terminal on Linux and macOS; import it through `terminal`."""

import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress

assert sys.platform != "win32"

RESIZE_SIGNAL: int | None = signal.SIGWINCH


def is_background_job(terminal: int) -> bool:
    """Tell whether the descriptor is a terminal that another job of its shell owns.

    Raises OSError.
    """
    return os.isatty(terminal) and os.tcgetpgrp(terminal) != os.getpgrp()


@contextmanager
def raw(terminal: int) -> Iterator[None]:
    """Put the terminal into raw mode in the block, and restore it afterwards."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal, termios.TCSADRAIN)  # keep what was typed already
        yield
    finally:
        with suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
