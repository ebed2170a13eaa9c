"""What was sent to a guest is repeated until it is acknowledged, and given up with its life."""

import asyncio

import pytest

from boincvm.controller import delivery
from boincvm.controller.delivery import Delivery, Parcel
from boincvm.controller.protocol.guest import Guest

LIMIT = 20.0


class Letter(Parcel):
    """A parcel for the guest "g", which records why it was given up."""

    def __init__(self, parcel_id: str, guest_id: str = "g", instance: str = "1") -> None:
        super().__init__(guest_id, instance, parcel_id)
        self.lost: list[str] = []

    def message(self) -> bytes:
        return self.id.encode()

    def give_up(self, why: str) -> None:
        self.lost.append(why)


class Post:
    """Records what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.news = asyncio.Event()

    def __call__(self, guest_id: str, body: bytes) -> None:
        self.sent.append((guest_id, body))
        self.news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(LIMIT):
            while len(self.sent) < count:
                self.news.clear()
                await self.news.wait()


def opened(post: Post, *letters: Letter, first_wait: float | None = None) -> Delivery[Letter]:
    made: Delivery[Letter] = Delivery(post, first_wait)
    for letter in letters:
        made.add(letter)
        made.send(letter)
    return made


async def test_at_beats_until_it_is_done() -> None:
    post, a, b = Post(), Letter("a"), Letter("b")
    made = opened(post, a, b)
    made.handle_beat("g")
    made.complete(a)
    made.complete(a)
    made.handle_beat("g")
    made.handle_beat("another")
    assert [body for _, body in post.sent] == [b"a", b"b", b"a", b"b", b"b"]
    assert (made.count("g"), made.get("g", "a"), made.get("g", "b")) == (1, None, b)
    made.complete(b)
    assert (made.count("g"), made.all()) == (0, [])


async def test_after_growing_waits_until_it_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "LONGEST_WAIT", 0.02)
    post, letter = Post(), Letter("a")
    made = opened(post, letter, first_wait=0.01)
    await post.until(4)
    assert letter.wait == 0.02
    made.acknowledge(letter)
    assert letter.timer is None
    count = len(post.sent)
    made.handle_beat("g")  # it is not settled yet
    assert len(post.sent) == count + 1
    made.complete(letter)


async def test_another_life_gives_up_what_was_for_the_former_one() -> None:
    post, old, new = Post(), Letter("old", instance="1"), Letter("new", instance="2")
    made = opened(post, old, new)
    made.handle_hello(Guest("g", "g", instance="2"), "was restarted")
    assert (old.lost, new.lost) == (["was restarted"], [])
    assert [body for _, body in post.sent] == [b"old", b"new", b"new"]
    assert made.all() == [new]
    made.complete(new)


async def test_a_guest_that_is_lost_loses_its_own_parcels_alone() -> None:
    post, letter, other = Post(), Letter("a"), Letter("a", guest_id="h")
    made = opened(post, letter, other, first_wait=100.0)
    made.handle_loss("g", "has left")
    assert (letter.lost, other.lost) == (["has left"], [])
    assert letter.timer is None
    assert made.all() == [other]
    made.complete(other)
