"""When to poll the channels: often when the client is about to write, seldom otherwise.

A BOINC client does its work once a second, and nearly everything that it sends it sends then; its
heartbeat shows when. So the time of the next tick is predicted from the previous ones, and polls
are close together around it and rare in between. How rare depends on what a poll costs on this
host.

A poll comes after a pause in which others have used the processor and its caches, so it costs what
its code takes to be fetched again: as little of it as possible runs at each poll.
"""

from collections.abc import Callable

BUDGET = 0.0006
"""Share of a core that all polls together may take."""
FINE = 0.004
"""Seconds between polls when a tick of the client is due."""
SHORTEST, LONGEST = 0.008, 0.25
"""Seconds between polls at other times."""
_TAIL = 0.003
"""Seconds after a heartbeat in which messages of the same tick may still arrive, so that one
more poll follows (0.6 ms at most were seen with client 7.20.5)."""
_POLLS_IN_A_WINDOW = 6
_LEAST_MARGIN, _MOST_MARGIN = 0.002, 0.05
_LEAST_PERIOD, _MOST_PERIOD = 0.9, 1.2
"""Seconds from tick to tick."""
_MOST_MISSES = 10
"""Number of missed ticks after which the schedule is reset."""
_LEAST_SAMPLE = 0.9
"""Seconds over which the cost of polling is measured."""


class PollSchedule:
    """Computes the pauses between polls. All times are seconds on one monotonic clock."""

    def __init__(self, now: float, cpu_time: Callable[[], float]) -> None:
        """Start a schedule; `cpu_time` returns the CPU time that polling has taken so far."""
        self._cpu_time = cpu_time
        self.pause = 0.02
        """Seconds between the rarer polls."""
        self._sample = (now, cpu_time())
        self._last_poll = now
        self._period = 1.0
        self._margin = _LEAST_MARGIN
        self._tick: tuple[float, float] | None = None
        """The two polls between which the last tick lay."""

    def polled(self, now: float, *, beat: bool) -> float:
        """Return the seconds until the next poll.

        `beat` tells whether this poll saw a new heartbeat.
        """
        if beat:
            self._learn(self._last_poll, now)
        self._last_poll = now
        if now - self._sample[0] >= _LEAST_SAMPLE:
            self._spend(now)
        return self._wait(now)

    def _learn(self, early: float, late: float) -> None:
        """Note that a tick lay between `early` and `late`."""
        former, self._tick = self._tick, (early, late)
        if former is None:
            return
        count = max(round((early + late - former[0] - former[1]) / 2 / self._period), 1)
        due_early, due_late = (time + count * self._period for time in former)
        error = max(early - due_late, due_early - late, 0.0)
        self._margin = max(_LEAST_MARGIN, 0.9 * self._margin, min(1.5 * error, _MOST_MARGIN))
        # Use only what the two polls prove: the tick may lie anywhere between them.
        shortest, longest = (early - former[1]) / count, (late - former[0]) / count
        proven = min(max(self._period, shortest), longest)
        period = self._period + 0.5 * (proven - self._period)
        self._period = min(max(period, _LEAST_PERIOD), _MOST_PERIOD)

    def _spend(self, now: float) -> None:
        """Adjust the pause between the rarer polls so that all polls together meet the budget."""
        (begin, spent), cpu = self._sample, self._cpu_time()
        share = (cpu - spent) / (now - begin)
        change = min(max(share / BUDGET, 0.5), 2.0)
        self.pause = min(max(self.pause * change, SHORTEST), LONGEST)
        self._sample = (now, cpu)

    def _wait(self, now: float) -> float:
        if self._tick is None:
            return self.pause
        early, late = self._tick
        if now < late + _TAIL:
            return FINE
        misses = max(int((now - late - self._margin) / self._period), 0)
        if misses > _MOST_MISSES:
            self._tick = None
            return self.pause
        due = (misses + 1) * self._period
        begin, end = early + due - self._margin, late + due + self._margin
        if now < begin:
            # Save a poll just before the window opens.
            return begin - now if begin - now < 1.5 * self.pause else self.pause
        return max(FINE, (end - begin) / _POLLS_IN_A_WINDOW)
