"""What a program can say to the host: lines that it writes into a FIFO of its own."""

from __future__ import annotations

import os

DIRECTORY = "/run/boincvm"
VARIABLE = b"BOINCVM_VOICE"
"""The environment variable that has the FIFO's path."""


class StatusChannel:
    """The FIFO of one call. Raises OSError.

    `descriptor` is to be read like a pipe from the program. We hold a writing end as well, so
    that it does not end with each line that an `echo` writes; `end` lets go of that.
    """

    def __init__(self, call: str) -> None:
        self._directory = f"{DIRECTORY}/{call}"
        self.path = f"{self._directory}/voice"
        os.makedirs(self._directory, 0o755)
        try:
            os.mkfifo(self.path)
            os.chmod(self.path, 0o622)  # programs of any user may speak
            self.descriptor = self._open(os.O_RDONLY)
            self._writer = self._open(os.O_WRONLY)
        except OSError:
            self._remove()
            raise

    def _open(self, direction: int) -> int:
        return os.open(self.path, direction | os.O_NONBLOCK | os.O_CLOEXEC)

    def _remove(self) -> None:
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass  # the program may have removed it
        try:
            os.rmdir(self._directory)
        except OSError:
            pass  # the program has put something there, which is its own business

    def end(self) -> None:
        """Nobody new may speak; what was said is still to be read, up to the end of file."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
            self._remove()
