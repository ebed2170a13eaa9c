"""The poll schedule, in the time of a simulated client."""

import random
from itertools import pairwise
from statistics import median

import pytest

from boincvm.boinc.poll_schedule import LONGEST, SHORTEST, PollSchedule

COST = 60e-6
"""Seconds of processor time for a look."""


def simulate(
    period: float, jitter: float, seconds: float, *, cost: float = COST, silent: range = range(0)
) -> tuple[list[float], list[float]]:
    """Return the seconds from each tick of the client to the poll that sees it, and the times of
    all polls."""
    chance = random.Random(1)
    ticks = [0.3 + period * n + chance.uniform(0, jitter) for n in range(int(seconds / period))]
    ticks = [tick for n, tick in enumerate(ticks) if n not in silent]
    now, cpu = 0.0, 0.0
    schedule = PollSchedule(now, lambda: cpu)
    latencies: list[float] = []
    looks: list[float] = []
    while now < seconds:
        beat = bool(ticks) and ticks[0] <= now
        while ticks and ticks[0] <= now:
            latencies.append(now - ticks.pop(0))
        cpu += cost
        looks.append(now)
        wait = schedule.polled(now, beat=beat)
        assert 0 < wait <= 1.5 * LONGEST
        now += wait + 0.0001
    return latencies, looks


@pytest.mark.parametrize("period", [0.97, 1.0, 1.003, 1.05])
@pytest.mark.parametrize("jitter", [0.0, 0.003, 0.01])
def test_a_tick_is_seen_at_once_and_seldom_looked_for(period: float, jitter: float) -> None:
    latencies, looks = simulate(period, jitter, 120)
    assert median(latencies[20:]) < 0.008
    share = sum(poll > 20 for poll in looks) * COST / 100
    assert share < 0.001


def test_where_reads_are_cheap_all_that_is_sent_is_read_soon() -> None:
    _, looks = simulate(1.0, 0.0, 60, cost=3e-6)
    gaps = [b - a for a, b in pairwise(looks) if a > 20]
    assert max(gaps) < 2 * SHORTEST


def test_a_client_that_was_silent_is_read_at_once_again() -> None:
    latencies, _ = simulate(1.0, 0.002, 100, silent=range(40, 70))
    assert median(latencies[50:]) < 0.008


def test_a_client_with_another_period_is_still_read() -> None:
    latencies, _ = simulate(0.05, 0.0, 30)
    assert max(latencies) < 2 * LONGEST
    latencies, _ = simulate(7.0, 0.0, 100)
    assert max(latencies) < 2 * LONGEST
