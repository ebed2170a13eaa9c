"""When to look at the channels: often when the client is about to speak, seldom otherwise.

A BOINC client does its work once a second and says then nearly all that it has to say: its
heartbeat shows when. So the time of the next one is predicted from those before, and looks are
close together around it and rare in between. How rare follows from what a look costs here.
"""

BUDGET = 0.0006
"""Share of a core that all looks together may take."""
FINE = 0.004
"""Seconds between looks when a tick of the client is due."""
SHORTEST, LONGEST = 0.008, 0.25
"""Seconds between looks at other times."""
_TAIL = 0.003
"""Seconds after a heartbeat in which what belongs to the same tick still comes (0.6 ms at most
were seen with client 7.20.5), so that one more look follows."""
_LOOKS_IN_A_WINDOW = 6
_LEAST_MARGIN, _MOST_MARGIN = 0.002, 0.05
_LEAST_PERIOD, _MOST_PERIOD = 0.9, 1.2
"""Seconds from tick to tick."""
_MOST_MISSES = 10
"""Ticks that did not come, after which the schedule is reset."""
_LEAST_SAMPLE = 0.9
"""Seconds over which the looks' cost is measured."""


class PollSchedule:
    """All times are seconds on one monotonic clock."""

    def __init__(self, now: float, cpu: float) -> None:
        """`cpu`: processor time that looking has taken so far."""
        self.pause = 0.02
        """Seconds between the rarer looks."""
        self._sample = (now, cpu)
        self._last_look = now
        self._period = 1.0
        self._margin = _LEAST_MARGIN
        self._tick: tuple[float, float] | None = None
        """The last tick lay between these two looks."""

    def looked(self, now: float, cpu: float, *, beat: bool) -> float:
        """After a look, which saw a new heartbeat or not: seconds until the next one."""
        if beat:
            self._learn(self._last_look, now)
        self._last_look = now
        self._spend(now, cpu)
        return self._wait(now)

    def _learn(self, early: float, late: float) -> None:
        """A tick lay between `early` and `late`."""
        former, self._tick = self._tick, (early, late)
        if former is None:
            return
        count = max(round((early + late - former[0] - former[1]) / 2 / self._period), 1)
        due_early, due_late = (time + count * self._period for time in former)
        error = max(early - due_late, due_early - late, 0.0)
        self._margin = max(_LEAST_MARGIN, 0.9 * self._margin, min(1.5 * error, _MOST_MARGIN))
        # Only what the two looks prove: the tick may lie anywhere between them.
        shortest, longest = (early - former[1]) / count, (late - former[0]) / count
        proven = min(max(self._period, shortest), longest)
        period = self._period + 0.5 * (proven - self._period)
        self._period = min(max(period, _LEAST_PERIOD), _MOST_PERIOD)

    def _spend(self, now: float, cpu: float) -> None:
        """The rarer looks are made such that all together cost the budget."""
        begin, spent = self._sample
        if now - begin < _LEAST_SAMPLE:
            return
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
            # Not just before the window opens: one look less.
            return begin - now if begin - now < 1.5 * self.pause else self.pause
        return max(FINE, (end - begin) / _LOOKS_IN_A_WINDOW)
