"""Which guests are present, silent, or gone."""

import asyncio
import time

import pytest

from boincvm.controller.guests import registry
from boincvm.controller.guests.registry import (
    DROPPED_AFTER,
    SILENT_AFTER,
    Change,
    Presence,
    Registry,
)
from boincvm.controller.protocol.guest import BEAT, Guest
from boincvm.controller.protocol.selector import parse_selector
from boincvm.errors import GuestProtocolError


class World:
    """A registry with a simulated clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.seen: list[tuple[str, Change]] = []
        self.registry = Registry(
            lambda guest, change: self.seen.append((guest.id, change)), lambda: self.now
        )

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.registry.check_silence()

    def changes(self) -> list[tuple[str, Change]]:
        seen, self.seen = self.seen, []
        return seen

    def ids(self, text: str) -> set[str]:
        return {guest.id for guest in self.registry.find(parse_selector(text))}


def test_a_guest_s_life() -> None:
    world = World()
    assert not world.registry.still_alive("1")  # it is to say HELLO first
    world.registry.hello(Guest("1", "one"))
    for _ in range(10):
        world.passes(BEAT)
        assert world.registry.still_alive("1")
    assert world.changes() == [("1", Change.FOUND)]
    world.passes(SILENT_AFTER)
    assert world.registry.presence("1") is Presence.SILENT
    assert world.ids("1") == {"1"}
    world.registry.still_alive("1")
    assert world.registry.presence("1") is Presence.PRESENT
    assert world.changes() == [("1", Change.SILENT), ("1", Change.RECOVERED)]
    world.passes(DROPPED_AFTER)
    assert world.changes() == [("1", Change.SILENT), ("1", Change.DROPPED)]
    assert (len(world.registry), world.ids("all")) == (0, set())
    assert not world.registry.still_alive("1")
    world.registry.hello(Guest("1", "one"))
    world.registry.bye("1")
    world.registry.bye("1")
    assert world.changes() == [("1", Change.FOUND), ("1", Change.LEFT)]


def test_each_has_its_own_time() -> None:
    world = World()
    for number in range(6):
        world.registry.hello(Guest(str(number), ""))
        world.passes(SILENT_AFTER / 4)
    assert world.ids("all") == set("012345")
    silent = {one for one in "012345" if world.registry.presence(one) is Presence.SILENT}
    assert silent == {"0", "1", "2"}
    world.registry.bye("1")
    world.passes(DROPPED_AFTER - SILENT_AFTER / 4 * 6)
    assert world.ids("all") == set("2345")


def test_a_clock_that_leaps_forward_drops_nobody_who_speaks_again() -> None:
    """After the host was suspended, all guests are dropped, and found again by their next
    messages."""
    world = World()
    world.registry.hello(Guest("1", "one"))
    world.passes(1e6)
    assert not world.registry.still_alive("1")
    world.registry.hello(Guest("1", "one"))
    assert world.registry.presence("1") is Presence.PRESENT


def test_another_hello_describes_it_anew() -> None:
    world = World()
    world.registry.hello(Guest("1", "one", labels={"site": "cern"}))
    world.registry.hello(Guest("1", "one", labels={"site": "cern"}))
    world.registry.hello(Guest("1", "one", labels={"site": "desy"}))
    assert world.changes() == [("1", Change.FOUND), ("1", Change.CHANGED)]
    assert (world.ids("site=cern"), world.ids("site=desy")) == (set(), {"1"})


@pytest.mark.parametrize(
    "guest",
    [
        Guest("", "x"),
        Guest("1" * 256, "x"),
        Guest("1", "a\nb"),
        Guest("1", "x", labels={"a": "x" * 256}),
        Guest("1", "x", labels={str(number): "" for number in range(65)}),
        Guest("1", "x", capabilities=frozenset(map(str, range(65)))),
    ],
)
def test_what_is_not_taken(guest: Guest) -> None:
    world = World()
    with pytest.raises(GuestProtocolError):
        world.registry.hello(guest)
    assert len(world.registry) == 0


def test_there_is_an_end_to_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MOST_GUESTS", 2)
    world = World()
    for number in "12":
        world.registry.hello(Guest(number, ""))
    with pytest.raises(GuestProtocolError, match="the maximum"):
        world.registry.hello(Guest("3", ""))
    world.registry.hello(Guest("1", "still"))


def test_ten_thousand_beats_cost_little() -> None:
    """The cost of a heartbeat must not grow with the number of guests: otherwise this takes
    minutes."""
    world = World()
    for number in range(10_000):
        world.registry.hello(Guest(str(number), ""))
    begin = time.process_time()
    for _ in range(20):
        world.now += BEAT
        for number in range(10_000):
            world.registry.still_alive(str(number))
        world.registry.check_silence()
    assert time.process_time() - begin < 30
    assert len(world.changes()) == 10_000


async def test_it_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BEAT", 0.02)
    monkeypatch.setattr(registry, "SILENT_AFTER", 0.05)
    gone = asyncio.Event()

    def report(_: Guest, change: Change) -> None:
        if change is Change.SILENT:
            gone.set()

    known = Registry(report)
    known.hello(Guest("1", ""))
    known.watch()
    async with asyncio.timeout(20):
        await gone.wait()
    known.close()
