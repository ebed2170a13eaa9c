"""Trying again, for a moment, what another process keeps the host from doing.

On Windows a virus scanner or an indexer that reads a file keeps others from replacing, removing or
starting it until it has closed it.
"""

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

PATIENCE = 2.0
"""Seconds."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1

_T = TypeVar("_T")


def patiently(action: Callable[[], _T], passes: Callable[[OSError], bool]) -> _T:
    """Return what `action` returns; do it again for PATIENCE seconds while its error passes.

    Raises OSError: one that does not pass, or the last one.
    """
    limit = time.monotonic() + PATIENCE
    pause = _FIRST_PAUSE
    while True:
        try:
            return action()
        except OSError as error:
            if not passes(error) or time.monotonic() >= limit:
                raise
        Event().wait(pause)  # Windows tells nobody when a file becomes free
        pause = min(2 * pause, _LONGEST_PAUSE)
