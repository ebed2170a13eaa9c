"""Notices that the host's clock went on without us: the computer slept, or somebody set it."""

import time

LEAST = 2.0
"""Seconds by which a clock that is corrected little by little does not differ."""


class ClockWatch:
    """Compares the wall clock with the one that stands still while the computer sleeps."""

    def __init__(self) -> None:
        self._difference = self._now()

    def has_jumped(self) -> bool:
        """Whether it has, since the clocks were last found apart or the watch began."""
        difference = self._now()
        if abs(difference - self._difference) < LEAST:
            return False
        self._difference = difference
        return True

    def _now(self) -> float:
        return time.time() - time.monotonic()
