"""The list of events, over several lives of the controller."""

import asyncio
from pathlib import Path

import pytest

from boincvm.controller.controller import run_controller
from boincvm.controller.events import Event, EventLog
from boincvm.controller.operations import call
from boincvm.controller.protocol.guest import Guest
from boincvm.errors import BoincvmError

pytestmark = pytest.mark.timeout(60)


def numbers(events: list[Event]) -> list[int]:
    return [event.number for event in events]


def log_with_gaps() -> EventLog:
    log = EventLog(101)
    log.load([Event(number, 0.0, "vm_state", "a", "it runs") for number in (1, 50, 100)])
    return log


@pytest.mark.parametrize(
    ("after", "expected"),
    [(0, [1, 50, 100]), (1, [50, 100]), (49, [50, 100]), (50, [100]), (100, []), (1000, [])],
)
async def test_numbers_may_have_gaps(after: int, expected: list[int]) -> None:
    assert numbers(log_with_gaps().list_after(after)) == expected


async def test_who_follows_gets_what_comes_behind_a_gap() -> None:
    log = log_with_gaps()
    follow = log.follow(100)
    log.add("vm_state", "a", "it is paused")
    async with asyncio.timeout(5):
        assert (await anext(follow)).number == 101
    await follow.aclose()


async def test_so_many_at_most() -> None:
    assert numbers(log_with_gaps().list_after(0, 2)) == [1, 50]


async def test_no_number_is_given_twice(tmp_path: Path) -> None:
    async with run_controller(tmp_path / "c") as controller:
        await call(controller, "create", {"name": "a", "memory": "256M"})
        for _ in range(2500):  # of which nothing is kept on disk
            controller.events.add("vm_load", "a", "its load")
        last = controller.events.last
    async with run_controller(tmp_path / "c") as controller:
        assert controller.events.last >= last
        controller.events.add("vm_state", "a", "something")
        assert [event.text for event in controller.events.list_after(last)] == ["something"]


async def test_a_damaged_file_of_one_machine_keeps_no_other_from_starting(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    async with run_controller(directory) as controller:
        for name in ("a", "b"):
            await call(controller, "create", {"name": name, "memory": "256M"})
    (directory / "machines/a/bus.json").write_text("{")
    async with run_controller(directory) as controller:
        troubles = [event for event in controller.events.list_after(0) if event.kind == "trouble"]
        assert [(event.vm, "is damaged" in event.text) for event in troubles] == [("a", True)]
        assert [machine.id for machine in controller.machines.all()] == ["a", "b"]


async def test_a_retry_when_the_guest_has_gone_is_the_same_command(tmp_path: Path) -> None:
    async with run_controller(tmp_path / "c") as controller:
        asked = {"vms": "g", "argv": ["true"], "id": "mine"}
        with pytest.raises(BoincvmError, match="matches no machine"):
            await call(controller, "exec", asked)
        controller.hub.registry.hello(Guest("g", "g", instance="1"))
        first = await call(controller, "exec", asked)
        controller.hub.registry.bye("g")
        assert (await call(controller, "exec", asked))["command"] == first["command"] == "mine"
        with pytest.raises(BoincvmError, match="matches no machine"):
            await call(controller, "exec", {**asked, "id": "another"})


def test_only_events_of_this_log_are_counted() -> None:
    """The numbers of another start begin much later."""
    log = EventLog(1000)
    assert (log.added, log.last) == (0, 999)
    log.add("trouble", None, "something")
    assert (log.added, log.last) == (1, 1000)
