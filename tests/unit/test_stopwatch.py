"""Time that counts only while a job may run."""

import asyncio
from time import monotonic

import pytest

from boincvm.stopwatch import Stopwatch

LIMIT = 10.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Set the time."""
    now = [100.0]
    monkeypatch.setattr("boincvm.stopwatch.monotonic", lambda: now[0])
    return now


async def test_time_passes_only_between_resume_and_pause(clock: list[float]) -> None:
    watch = Stopwatch(5.0)
    clock[0] += 2
    assert watch.elapsed == 7
    watch.pause()
    clock[0] += 1000
    watch.pause()
    assert watch.elapsed == 7
    watch.resume()
    clock[0] += 3
    watch.resume()
    clock[0] += 4
    assert watch.elapsed == 14


async def test_a_time_that_has_passed_is_reached_at_once() -> None:
    async with asyncio.timeout(LIMIT):
        await Stopwatch(5.0).reach(5.0)


async def test_reaching_waits_for_what_is_left_and_no_pause_counts() -> None:
    watch = Stopwatch(3.0)
    reached = asyncio.ensure_future(watch.reach(3.2))
    begin = monotonic()
    watch.pause()
    done, _ = await asyncio.wait([reached], timeout=0.4)
    assert not done
    watch.resume()
    async with asyncio.timeout(LIMIT):
        await reached
    assert 3.2 <= watch.elapsed < 3.2 + LIMIT
    assert monotonic() - begin >= 0.6 - 0.01
