"""The host's clock jumps: presence and time limits use a clock that does not."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from boincvm.controller.commands import retention
from boincvm.controller.commands.command import Command
from boincvm.controller.commands.table import CommandTable
from boincvm.controller.controller import Controller, run_controller
from boincvm.controller.guests import registry
from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.registry import Change, Presence
from boincvm.controller.operations import call
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.program import Request
from boincvm.node.command import NodeCommand
from support.controller.lossy import FakeProgram
from support.controller.quiet_bus import QuietBus

YEAR = 365 * 86400.0
jumps = pytest.mark.parametrize("jump", [YEAR, -YEAR, -time.time()], ids=["on", "back", "1970"])


class Clock:
    """The host's clock, which somebody sets; later times have the same offset."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset = 0.0
        true = time.time
        monkeypatch.setattr(time, "time", lambda: true() + self.offset)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@contextmanager
def quick_presence(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(registry, "BEAT", 0.02)
        meanwhile.setattr(registry, "SILENT_AFTER", 0.3)
        meanwhile.setattr(registry, "DROPPED_AFTER", 0.6)
        yield


@jumps
async def test_presence_goes_by_another_clock(
    jump: float, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, seen = QuietBus(), list[Change]()
    news = asyncio.Event()

    def report(_guest: Guest, change: Change) -> None:
        seen.append(change)
        news.set()

    hub = Hub(bus, report)
    await hub.open()
    try:
        bus.deliver("g", b"HELLO")
        clock.offset = jump
        hub.registry.check_silence()
        bus.deliver("g", b"STILL_ALIVE")
        assert hub.registry.presence("g") is Presence.PRESENT
        assert seen == [Change.FOUND]
        # And a guest that falls silent is noticed in time.
        with quick_presence(monkeypatch):
            hub.registry.close()
            hub.registry.watch()
            async with asyncio.timeout(20):
                while Change.DROPPED not in seen:
                    news.clear()
                    await news.wait()
        assert seen == [Change.FOUND, Change.SILENT, Change.DROPPED]
    finally:
        await hub.close()


@jumps
async def test_a_command_ends_after_its_time_whatever_the_clock_says(
    jump: float, clock: Clock
) -> None:
    hub = Hub(QuietBus())
    hub.registry.hello(Guest("g", "g"))
    patient = hub.run("g", Request(("x",)), within=3600.0)
    hasty = hub.run("g", Request(("x",)), within=0.2)
    clock.offset = jump
    try:
        async with asyncio.timeout(20):
            await hasty.finished()
        assert hasty.answers["g"].why == "too late"
        assert not patient.is_finished
        assert hub.commands.all() == [patient, hasty]
    finally:
        await hub.close()


@jumps
async def test_results_are_kept_for_their_time(jump: float, clock: Clock) -> None:
    now = 1000.0
    table = CommandTable(lambda _guest, _word: None, lambda: now)
    made = table.submit([Guest("g", "g")], Request(("x",)), command_id="mine")
    table.drop("mine")
    clock.offset = jump
    assert table.all() == [made]
    now += retention.RETENTION_TIME + 1
    assert table.all() == []


def stored(controller: Controller) -> list[Command]:
    return controller.hub.commands.all()


@jumps
async def test_another_controller_after_a_jump(jump: float, clock: Clock, tmp_path: Path) -> None:
    """It uses the host's clock for its deadlines, and loses nothing else."""
    async with run_controller(tmp_path / "c") as controller:
        controller.hub.registry.hello(Guest("g", "g", instance="1"))
        for name, within in (("endless", None), ("hour", 3600.0)):
            given = {"vms": "g", "argv": ["x"], "id": name}
            await call(controller, "exec", given | ({"within": within} if within else {}))
        last = controller.events.last
    clock.offset = jump
    async with run_controller(tmp_path / "c") as controller:
        endless, hour = stored(controller)
        assert not endless.is_finished
        assert controller.hub.registry.presence("g") is Presence.SILENT
        await asyncio.sleep(0)
        assert [event.number for event in controller.events.list_after(0)][:last] == [
            *range(1, last + 1)
        ]
        if jump > 0:
            async with asyncio.timeout(20):
                await hour.finished()
            assert hour.answers["g"].why == "too late"
        else:
            assert not hour.is_finished


@jumps
async def test_machines_bear_it(jump: float, clock: Clock, tmp_path: Path) -> None:
    async with run_controller(tmp_path / "c") as controller:
        clock.offset = jump
        await call(controller, "create", {"name": "a", "memory": "256M"})
    async with run_controller(tmp_path / "c") as controller:
        assert [one.id for one in controller.machines.all()] == ["a"]
        (found,) = [one for one in controller.events.list_after(0) if one.kind == "vm_state"]
        assert found.vm == "a"


class Lasting(FakeProgram):
    def state(self) -> dict[str, object]:
        return {}


async def test_how_long_a_program_has_run_leaves_out_its_machine_s_sleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    command = NodeCommand("1", Request(("wait",)), lambda _: None)
    assert command.seconds == 0
    command.begin(Lasting)
    now = 3.0
    stored = json.loads(json.dumps(command.state()))
    now = 1000.0
    back = NodeCommand.restored(stored, lambda _: None)
    assert back.seconds == 3
    back.attach(Lasting(Request(("wait",)), back))
    now = 1002.0
    assert back.seconds == 5
