"""Selectors: what they match, and what is invalid."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.selector import Selector, parse_selector
from boincvm.errors import UsageError


def guest(name: str, **labels: str) -> Guest:
    return Guest(name, name, labels=labels)


@pytest.mark.parametrize(
    ("text", "fits", "does_not"),
    [
        ("all", ["1", "1.2.3", "x"], []),
        ("1.2.3", ["1.2.3"], ["1.2.4", "1.2", "1.2.3.4", "1x2.3"]),
        ("1.2.*", ["1.2.3", "1.2.x-y"], ["1.2", "1.3.3", "1.2.3.4"]),
        ("1.**", ["1.2", "1.2.3"], ["1", "2.1", "11.2"]),
        ("node-*.a", ["node-1.a", "node-.a"], ["node-1.b", "node-1.x.a"]),
        ("*", ["1", "abc"], ["1.2"]),
    ],
)
def test_ids(text: str, fits: list[str], does_not: list[str]) -> None:
    selector = parse_selector(text)
    assert [name for name in fits if not selector.matches(guest(name))] == []
    assert [name for name in does_not if selector.matches(guest(name))] == []


CERN = {"site": "cern", "cpus": "4", "gpu": ""}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("site=cern", True),
        ("site=desy", False),
        ("site!=desy", True),
        ("nothing!=desy", True),
        ("site=cern,cpus>=4", True),
        ("site=cern,cpus>4", False),
        ("cpus<=4.0,cpus<1e3", True),
        ("site>=4", False),
        ("nothing<4", False),
        ("gpu,site=cern", True),
        ("gpu=", True),
        ("!gpu", False),
        ("!tape", True),
        ("!tape,site=cern", True),
        ("site=", False),
    ],
)
def test_labels(text: str, fits: bool) -> None:
    assert parse_selector(text).matches(guest("1", **CERN)) is fits


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 1),
        ("a b", 2),
        ("1..2", 2),
        ("1.", 2),
        (".1", 1),
        ("site=cern,", 11),
        (",site=cern", 1),
        ("site=a=b", 7),
        ("cpus>=many", 7),
        ("cpus>", 6),
        ("=cern", 1),
        ("!", 2),
        ("!gpu=1", 5),
        ("x" * 1025, 1),
        ("*" * 9, 9),
    ],
)
def test_what_is_none(text: str, column: int) -> None:
    with pytest.raises(UsageError, match=f"column {column} ") as caught:
        parse_selector(text)
    assert "\n" not in caught.value.message
    assert caught.value.hint


@given(st.text(max_size=30))
def test_anything_is_a_selector_or_a_usage_error(text: str) -> None:
    try:
        selector = parse_selector(text)
    except UsageError:
        return
    assert selector.matches(guest("1")) in (True, False)
    assert parse_selector(selector.text) == selector


words = st.text("abc", min_size=1, max_size=2)


@given(st.lists(words, min_size=1, max_size=4))
def test_each_id_selects_itself_alone(parts: list[str]) -> None:
    name = ".".join(parts)
    selector: Selector = parse_selector(name) if name != "all" else Selector(name)
    assert selector.matches(guest(name))
    assert not selector.matches(guest(name + "x"))


@given(st.dictionaries(words, st.text("xyz", max_size=3), min_size=1, max_size=4))
def test_all_labels_together_select_who_has_them(labels: Mapping[str, str]) -> None:
    selector = parse_selector(",".join(f"{name}={value}" for name, value in labels.items()))
    assert selector.matches(guest("1", **labels))
    for name in labels:
        fewer = {one: value for one, value in labels.items() if one != name}
        assert not selector.matches(guest("1", **fewer))
