"""When machines are saved: after a period, on request, on command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from boincvm.machine import checkpoint_schedule
from boincvm.machine.checkpoint_schedule import CheckpointSchedule
from boincvm.stopwatch import Stopwatch

LIMIT = 10.0
"""Seconds for what comes without any waiting."""
A_MOMENT = 0.1
"""Seconds in which something that is due would have come."""


class Watch(Stopwatch):
    """A clock that the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._set = asyncio.Event()

    @property
    def elapsed(self) -> float:
        return self.now

    def set(self, seconds: float) -> None:
        self.now = seconds
        self._set.set()
        self._set = asyncio.Event()

    async def reach(self, seconds: float) -> None:
        while self.now < seconds:
            await self._set.wait()


def times(period: float, random: float = 0.0) -> tuple[CheckpointSchedule, Watch]:
    made, watch = CheckpointSchedule(period, lambda: random), Watch()
    made.watch = watch
    return made, watch


@asynccontextmanager
async def waiting(times: CheckpointSchedule) -> AsyncIterator["asyncio.Task[None]"]:
    """Wait for the next checkpoint."""
    task = asyncio.create_task(times.due())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=LIMIT)


async def is_due(task: "asyncio.Task[None]", limit: float) -> bool:
    done, _ = await asyncio.wait([task], timeout=limit)
    return bool(done)


async def due_at_once(times: CheckpointSchedule) -> None:
    async with asyncio.timeout(LIMIT):
        await times.due()


@pytest.mark.parametrize(
    ("period", "random", "seconds"),
    [(300.0, 0.0, 300.0), (300.0, 0.5, 315.0), (300.0, 1.0, 330.0), (1.0, 0.0, 60.0),
     (0.0, 0.5, 63.0), (-5.0, 0.0, 60.0)],
)  # fmt: skip
async def test_a_period_and_what_is_added_to_it(
    period: float, random: float, seconds: float
) -> None:
    timer, watch = times(period, random)
    for last in (0.0, seconds, 2 * seconds):
        async with waiting(timer) as task:
            watch.set(last + seconds - 0.1)
            assert not await is_due(task, A_MOMENT)
            watch.set(last + seconds)
            assert await is_due(task, LIMIT)


async def test_a_period_begins_when_the_one_before_was_due() -> None:
    timer, watch = times(100.0)
    watch.set(1000.0)  # nobody has asked for so long
    await due_at_once(timer)
    async with waiting(timer) as task:
        watch.set(1099.0)
        assert not await is_due(task, A_MOMENT)
        watch.set(1100.0)
        assert await is_due(task, LIMIT)


def test_what_is_added_differs() -> None:
    numbers = {checkpoint_schedule._random() for _ in range(20)}
    assert len(numbers) > 10
    assert all(0 <= number < 1 for number in numbers)


async def test_the_real_watch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_schedule, "LEAST_PERIOD", 0.2)
    timer = CheckpointSchedule(0.1, lambda: 1.0)
    await due_at_once(timer)
    assert 0.22 <= timer.watch.elapsed < LIMIT


async def test_what_is_suspended_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_schedule, "LEAST_PERIOD", 0.2)
    timer = CheckpointSchedule(0.0, lambda: 0.0)
    timer.watch.pause()
    async with waiting(timer) as task:
        assert not await is_due(task, 0.5)
        timer.watch.resume()
        assert await is_due(task, LIMIT)
    assert 0.2 <= timer.watch.elapsed < LIMIT


async def test_a_suspended_watch_holds_a_wish_up_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_schedule, "LEAST_PAUSE", 0.2)
    timer = CheckpointSchedule(1000.0)
    timer.suggest()
    await due_at_once(timer)
    timer.watch.pause()
    timer.suggest()
    async with waiting(timer) as task:
        assert not await is_due(task, 0.5)
        timer.watch.resume()
        assert await is_due(task, LIMIT)


async def test_the_first_wish_counts_at_once() -> None:
    timer, watch = times(1000.0)
    watch.set(1.0)
    async with waiting(timer) as task:
        assert not await is_due(task, A_MOMENT)
        timer.suggest()
        assert await is_due(task, LIMIT)


async def test_there_is_a_pause_between_two_wishes() -> None:
    timer, watch = times(1000.0)
    watch.set(50.0)
    timer.suggest()
    await due_at_once(timer)
    for last in (50.0, 60.0):
        timer.suggest()
        timer.suggest()
        async with waiting(timer) as task:
            watch.set(last + 9.9)
            assert not await is_due(task, A_MOMENT)
            watch.set(last + 10.0)
            assert await is_due(task, LIMIT)


async def test_a_wish_that_is_granted_is_none_any_more() -> None:
    timer, watch = times(1000.0)
    watch.set(1.0)
    timer.suggest()
    await due_at_once(timer)
    watch.set(900.0)
    async with waiting(timer) as task:
        assert not await is_due(task, A_MOMENT)


async def test_a_wish_does_not_wait_longer_than_the_period() -> None:
    timer, watch = times(100.0)
    watch.set(100.0)
    await due_at_once(timer)
    watch.set(109.0)
    timer.suggest()
    async with waiting(timer) as task:
        assert not await is_due(task, A_MOMENT)
        watch.set(110.0)
        assert await is_due(task, LIMIT)
    watch.set(209.0)
    async with waiting(timer) as task:  # and the period starts again
        assert not await is_due(task, A_MOMENT)
        watch.set(210.0)
        assert await is_due(task, LIMIT)


async def test_an_order_counts_at_once_without_any_pause() -> None:
    timer, watch = times(1000.0)
    watch.set(5.0)
    for _ in range(3):
        async with waiting(timer) as task, asyncio.timeout(LIMIT):
            assert not await is_due(task, A_MOMENT)
            order = asyncio.create_task(timer.order())
            assert await is_due(task, LIMIT)
            assert not order.done()
            timer.conclude(None)
            await order


async def test_an_order_counts_while_the_watch_is_paused() -> None:
    timer = CheckpointSchedule(1000.0)
    timer.watch.pause()
    async with waiting(timer) as task, asyncio.timeout(LIMIT):
        order = asyncio.create_task(timer.order())
        assert await is_due(task, LIMIT)
        timer.conclude(None)
        await order


async def test_a_request_fails_with_the_reason_why_there_is_none() -> None:
    timer, _ = times(1000.0)
    orders = [asyncio.create_task(timer.order()) for _ in range(2)]
    await due_at_once(timer)
    timer.conclude(OSError("no room"))
    for order in orders:
        with pytest.raises(OSError, match="no room"):
            await asyncio.wait_for(order, LIMIT)
    timer.conclude(None)  # nobody waits any more


async def test_a_request_that_was_given_up_is_forgotten() -> None:
    timer, _ = times(1000.0)
    patient, impatient = (asyncio.create_task(timer.order()) for _ in range(2))
    await due_at_once(timer)
    impatient.cancel()
    await asyncio.wait([impatient], timeout=LIMIT)
    timer.conclude(None)
    await asyncio.wait_for(patient, LIMIT)
    assert impatient.cancelled()


async def test_an_order_that_is_carried_out_is_none_any_more() -> None:
    timer, _ = times(1000.0)
    order = asyncio.create_task(timer.order())
    await due_at_once(timer)
    timer.conclude(None)
    await asyncio.wait_for(order, LIMIT)
    async with waiting(timer) as task:
        assert not await is_due(task, A_MOMENT)


async def test_nothing_is_left_of_one_who_waits_no_more() -> None:
    timer, _ = times(1000.0)
    async with waiting(timer) as task:
        assert not await is_due(task, A_MOMENT)
    assert task.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
