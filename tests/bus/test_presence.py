"""Guests on a real bus announce themselves, become silent, send false messages, and return."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from boincvm.bus.client import Address, StompBus
from boincvm.bus.transport import Message
from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.registry import Change
from boincvm.controller.protocol.envelope import LONGEST_TABLE
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.selector import parse_selector
from support.bus.embedded import broker, bus
from support.observed import Observed

pytestmark = pytest.mark.timeout(60)


class Controller(Observed):
    """A registry on a bus, and the changes that it has reported."""

    def __init__(self, of: StompBus) -> None:
        super().__init__()
        self.changes: list[tuple[str, Change]] = []
        self.hub = Hub(of, self._notify)
        self.registry = self.hub.registry
        self.bus = of

    def _notify(self, guest: Guest, change: Change) -> None:
        self.changes.append((guest.id, change))
        self._news.set()

    def ids(self, text: str) -> list[str]:
        return sorted(guest.id for guest in self.registry.find(parse_selector(text)))


@asynccontextmanager
async def controller(address: Address) -> AsyncIterator[Controller]:
    async with bus(address) as opened:
        made = Controller(opened)
        await made.hub.open()
        yield made
        await made.hub.close()


@asynccontextmanager
async def three(first: str, second: str) -> AsyncIterator[tuple[Controller, StompBus, StompBus]]:
    """Return a controller, and two peers that have logged in with these names."""
    async with (
        broker() as (_, address),
        controller(address) as made,
        bus(address, first) as one,
        bus(address, second) as other,
    ):
        yield made, one, other


async def emit(guest: StompBus, name: str, word: str, table: object = None) -> None:
    """Send a message and wait until the broker has passed it on."""
    text = word if table is None else f"{word} {json.dumps(table)}"
    await guest.send(f"/topic/host.{name}", {}, text.encode())


async def test_they_come_and_go() -> None:
    async with three("g1", "g2") as (made, first, second):
        await emit(first, "g1", "HELLO", {"name": "one", "labels": {"site": "cern"}})
        await emit(second, "g2", "HELLO", {"labels": {"site": "desy"}, "capabilities": ["run"]})
        await made.until(lambda: len(made.registry) == 2)
        assert (made.ids("site=cern"), made.ids("all")) == (["g1"], ["g1", "g2"])
        (found,) = made.registry.find(parse_selector("g2"))
        assert found == Guest("g2", "g2", "", {"site": "desy"}, frozenset(["run"]))
        await emit(first, "g1", "BYE")
        await made.until(lambda: ("g1", Change.LEFT) in made.changes)
        assert made.ids("all") == ["g2"]


async def test_a_guest_that_is_not_known_is_asked() -> None:
    """A restarted controller, for example, finds all guests by their next heartbeats."""
    async with broker() as (_, address), controller(address) as made, bus(address, "g1") as guest:

        def answer(message: Message) -> None:
            if message.body == b"HELLO_WANTED":
                guest.post("/topic/host.g1", {}, b'HELLO {"name": "one"}')

        await guest.subscribe("/topic/guest.g1", answer)
        await emit(guest, "g1", "STILL_ALIVE")
        await made.until(lambda: len(made.registry) == 1)
        assert made.ids("g1") == ["g1"]


async def test_nobody_speaks_for_another() -> None:
    """Even if the broker permits it: the controller trusts only the sender's name."""
    async with three("host", "g2") as (made, liar, good):
        await emit(liar, "g1", "HELLO", {"name": "one"})
        await emit(good, "g2", "HELLO")
        await made.until(lambda: len(made.registry) == 1)
        await emit(liar, "g2", "BYE")
        await emit(good, "g2", "HELLO", {"name": "changed"})
        await made.until(lambda: ("g2", Change.CHANGED) in made.changes)
        assert made.ids("all") == ["g2"]
        assert made.hub.counts["gave a false id"] == 2


@pytest.mark.parametrize(
    "body",
    [
        b"HELLO {",
        b"HELLO []",
        b'HELLO {"name": 1}',
        b'HELLO {"labels": ["a"]}',
        b'HELLO {"labels": {"a": 1}}',
        b'HELLO {"capabilities": "run"}',
        b'HELLO {"name": "a\\nb"}',
        b"HELLO " + b"[" * 60000,
        b"HELLO \xff",
        b"HELLO " + b" " * (LONGEST_TABLE + 1),
    ],
    ids=lambda body: body[:24],
)
async def test_what_makes_no_sense_is_counted(body: bytes) -> None:
    async with broker() as (_, address), controller(address) as made, bus(address, "g1") as guest:
        await guest.send("/topic/host.g1", {}, body)
        await emit(guest, "g1", "HELLO", {"name": "good"})
        await made.until(lambda: len(made.registry) == 1)
        assert made.hub.counts["invalid"] == 1


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", "invalid"),
        (b"eval 1", "invalid"),
        (b"CMD_RESULT {}", "invalid"),
        (b"WHAT {}", "unknown"),
    ],
)
async def test_other_words_are_not_ours(body: bytes, count: str) -> None:
    async with broker() as (_, address), controller(address) as made, bus(address, "g1") as guest:
        await guest.send("/topic/host.g1", {}, body)
        await emit(guest, "g1", "HELLO", {"name": "good"})
        await made.until(lambda: len(made.registry) == 1)
        assert dict(made.hub.counts) == {count: 1, "HELLO": 1}
