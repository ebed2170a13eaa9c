"""Pauses on Linux and macOS; import it through `pauses`.

Not those of a lock with a time limit: waking up from `poll` takes three quarters of their processor
time (docs/boinc-library.md).
"""

import math
import os
import select
import sys
import threading

assert sys.platform != "win32"


class Pauses:
    """The pauses of one thread."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._read_end, self._write_end = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._read_end, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Pause for about that long; return whether `end` was called."""
        return bool(self._poll.poll(math.ceil(seconds * 1000)))

    def end(self, thread: threading.Thread) -> None:
        """End the pauses of `thread`, and wait for its end."""
        os.write(self._write_end, b"\0")  # its hang-up would wait for children that have it, too
        thread.join()
        os.close(self._write_end)
        os.close(self._read_end)
