"""The volunteer's limit of processor time, where the client leaves it to the task."""

import asyncio

import pytest

from boincvm.boinc import InitData
from boincvm.boinc.init_data import Preferences
from boincvm.boinc.testing import EndKind
from boincvm.wrapper import processor_limit
from boincvm.wrapper.processor_limit import ProcessorLimit, share_left_to_us, work_and_rest
from support.host_slot import HostSlot, task

LIMIT = 20.0


@pytest.mark.parametrize(
    ("plan_class", "limit", "share"),
    [
        ("", 50.0, 1.0),
        ("mt", 50.0, 1.0),
        ("vbox64", 50.0, 0.5),
        ("vbox64_mt", 100.0, 1.0),
        ("vbox64", 0.001, 0.01),
    ],
)
def test_whose_limit_it_is(plan_class: str, limit: float, share: float) -> None:
    preferences = Preferences(cpu_usage_limit=limit)
    assert share_left_to_us(InitData(plan_class=plan_class, preferences=preferences)) == share


@pytest.mark.parametrize(
    ("share", "times"), [(0.5, (1.0, 1.0)), (0.75, (3.0, 1.0)), (0.2, (1.0, 4.0))]
)
def test_the_shorter_one_is_a_second(share: float, times: tuple[float, float]) -> None:
    assert work_and_rest(share) == pytest.approx(times)


async def test_it_works_and_rests_until_the_limit_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor_limit, "SHORTER", 0.01)
    shares = [0.5]
    seen: list[bool] = []

    def changed() -> None:
        seen.append(limit.is_resting)
        if len(seen) == 5:
            shares[0] = 1.0
            limit.recheck()
        elif len(seen) == 6:
            ended.set()

    limit = ProcessorLimit(lambda: shares[0], changed)
    ended = asyncio.Event()
    running = asyncio.ensure_future(limit.run())
    try:
        async with asyncio.timeout(LIMIT):
            await ended.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert seen == [True, False, True, False, True, False]


async def test_a_task_that_the_client_does_not_limit(slot: HostSlot) -> None:
    """It stands still although the client has not suspended it, until the volunteer allows more."""
    slot.slot.values["plan_class"] = "vbox64"
    slot.slot.preferences["cpu_usage_limit"] = 50.0
    slot.slot.write_init_data()
    slot.job(task("while [ ! -e go ]; do sleep 0.01; done"))
    await slot.begin()
    await slot.holds(slot.stands_still)
    assert "it runs 50% of the time" in slot.stderr
    slot.change_preferences(cpu_usage_limit=100.0)
    slot.write("go", "")
    assert (await slot.wait()).kind is EndKind.FINISHED, slot.stderr
    assert "Traceback" not in slot.stderr
