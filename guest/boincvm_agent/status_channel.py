"""The status channel: a FIFO for each program, whose lines go to the host."""

from __future__ import annotations

import os

DIRECTORY = "/run/boincvm"
VARIABLE = b"BOINCVM_STATUS_CHANNEL"
"""The environment variable with the FIFO's path."""


class StatusChannel:
    """The FIFO of one call. Raises OSError.

    `descriptor` is read like a pipe from the program. We keep a writing end open as well, so that
    the end of each `echo` is no end of file; `end` closes it.
    """

    def __init__(self, call: str) -> None:
        self._directory = f"{DIRECTORY}/{call}"
        self.path = f"{self._directory}/status-channel"
        os.makedirs(self._directory, 0o755)
        try:
            os.mkfifo(self.path)
            os.chmod(self.path, 0o622)  # programs of any user may write
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
            pass  # the program has put something there

    def end(self) -> None:
        """Admit no new writers; what was written can still be read up to the end of file."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1
            self._remove()
