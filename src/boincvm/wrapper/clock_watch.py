"""Detects that the host's clock has jumped: the computer slept, or somebody set it."""

import time

LEAST = 2.0
"""Smallest jump, in seconds; gradual corrections of the clock are smaller."""


class ClockWatch:
    """Compares the wall clock with the one that stops while the computer sleeps."""

    def __init__(self) -> None:
        self._difference = self._now()

    def has_jumped(self) -> bool:
        """Tell whether the clock has jumped since the last jump found, or since the watch began."""
        difference = self._now()
        if abs(difference - self._difference) < LEAST:
            return False
        self._difference = difference
        return True

    def _now(self) -> float:
        return time.time() - time.monotonic()
