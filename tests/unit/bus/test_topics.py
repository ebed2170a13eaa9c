"""Destinations, patterns, and subscriptions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.bus.topics import Subscriptions, covers, is_destination, is_pattern

words = st.sampled_from(["a", "b", "c"])
destinations = st.lists(words, min_size=1, max_size=4).map(lambda some: "/topic/" + ".".join(some))


@st.composite
def patterns(draw: st.DrawFn) -> str:
    chosen = draw(st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=3))
    rest = [".**"] if draw(st.booleans()) else []
    return "/topic/" + ".".join(chosen) + "".join(rest)


def fits(pattern: str, destination: str) -> bool:
    """Match in the slow way."""
    text = re.escape(pattern).replace(r"\.\*\*", r"(\..+)?").replace(r"\*", r"[^.]+")
    return re.fullmatch(text, destination) is not None


@given(st.lists(patterns(), max_size=8), st.lists(patterns(), max_size=3), destinations)
def test_matches_are_those_that_fit(stored: list[str], gone: list[str], destination: str) -> None:
    subscriptions: Subscriptions[tuple[int, str]] = Subscriptions()
    for number, pattern in enumerate(stored):
        subscriptions.add(pattern, (number, pattern))
    for pattern in gone:
        subscriptions.add(pattern, (-1, pattern))
    for pattern in gone:
        subscriptions.remove(pattern, (-1, pattern))
    wanted = [(number, one) for number, one in enumerate(stored) if fits(one, destination)]
    assert sorted(subscriptions.match(destination)) == wanted


@given(st.lists(patterns(), max_size=8))
def test_nothing_is_left_of_what_was_removed(some: list[str]) -> None:
    subscriptions: Subscriptions[str] = Subscriptions()
    for pattern in some:
        subscriptions.add(pattern, "x")
    for pattern in some:
        subscriptions.remove(pattern, "x")
        subscriptions.remove(pattern, "x")
    assert subscriptions._root.is_empty


@given(patterns(), patterns(), destinations)
def test_what_is_covered_fits(allowed: str, wanted: str, destination: str) -> None:
    if covers(allowed, wanted) and fits(wanted, destination):
        assert fits(allowed, destination)


@given(patterns(), destinations)
def test_a_destination_is_covered_if_it_fits(allowed: str, destination: str) -> None:
    assert covers(allowed, destination) == fits(allowed, destination)


@pytest.mark.parametrize(
    ("text", "destination", "pattern"),
    [
        ("/topic/a.b", True, True),
        ("/queue/a", True, True),
        ("/topic/*", False, True),
        ("/topic/a.**", False, True),
        ("/topic/a.**.b", False, False),
        ("/topic/**", False, True),
        ("/queue/*", False, False),
        ("/topic/", False, False),
        ("/topic/a..b", False, False),
        ("/topic/a b", False, False),
        ("/topic/ab*", False, False),
        ("/temp-queue/a", False, False),
        ("a", False, False),
        ("/topic/" + ".".join("a" * 16), True, True),
        ("/topic/" + ".".join("a" * 17), False, False),
        ("/topic/" + "a" * 249, False, False),
    ],
)
def test_what_they_look_like(text: str, *, destination: bool, pattern: bool) -> None:
    assert (is_destination(text), is_pattern(text)) == (destination, pattern)
