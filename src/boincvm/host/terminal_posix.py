"""The user's terminal on Linux and macOS; `terminal` is the face."""

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
    """Whether the descriptor is a terminal that another job of its shell has. Raises OSError."""
    return os.isatty(terminal) and os.tcgetpgrp(terminal) != os.getpgrp()


@contextmanager
def raw(terminal: int) -> Iterator[None]:
    """In the block keys come one by one, unseen and unchanged; afterwards all is as it was."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal, termios.TCSADRAIN)  # what is typed already is not lost
        yield
    finally:
        with suppress(termios.error):  # it is gone
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
