"""Two sides of a ratio, measured alternately so that disturbances of the host affect both."""

from collections.abc import Callable
from statistics import median

from benchmarks.results import Log


def interleaved_medians(
    ours: Callable[[], float], theirs: Callable[[], float], times: int, log: Log
) -> tuple[float, float]:
    """Return the medians of `times` runs of each; each call returns what it measured."""
    measured: tuple[list[float], list[float]] = ([], [])
    for turn in range(times):
        log(f"{turn + 1} of {times}")
        # The order alternates, so that neither always follows the other.
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            measured[side].append((ours, theirs)[side]())
    return median(measured[0]), median(measured[1])
