"""The user's own terminal, which is connected to a program in a guest: its size, and its keys."""

import os

from boincvm.errors import UsageError
from boincvm.guestlink.terminal.protocol import Size

BEAT = 60.0
"""Seconds without a key after which something is sent: the remote end gives up after a silence."""


class EscapeDetector:
    """Finds `~.` after a line end: the user wants to leave, whatever the remote end does."""

    def __init__(self) -> None:
        self._seen: int | None = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what to send of `data`, and True if the user leaves.

        A `~` at the beginning of a line is held back until the next key.
        """
        sent = bytearray()
        for key in data:
            if self._seen == 0 and key == ord("~"):
                self._seen = 1
                continue
            if self._seen == 1:
                if key == ord("."):
                    return bytes(sent), True
                if key != ord("~"):
                    sent += b"~"  # `~~` stands for one
            sent.append(key)
            self._seen = 0 if key in b"\r\n" else None
        return bytes(sent), False


def check_terminal(terminal: int, what: str, *, hint: str) -> None:
    """Check that `what` has a terminal; `hint`: what to do without. Raises UsageError."""
    if not os.isatty(terminal):
        raise UsageError(f"{what} needs a terminal, and standard input is not one", hint=hint)


def size_of(terminal: int) -> Size:
    """Return a terminal's size, or the default if it is unknown."""
    columns, rows = os.get_terminal_size(terminal)
    return Size(rows or Size().rows, columns or Size().columns)
