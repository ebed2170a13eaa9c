"""Descriptions of an invited host's machines: encoded ones can be decoded, others are refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from boincvm.controller.protocol.guest import check_id
from boincvm.controller.protocol.host_machines import (
    PAGE,
    HostMachine,
    controller_id,
    encode_page,
    read_machine,
    read_page,
)
from boincvm.controller.protocol.requests import MOST_DATA
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import GuestProtocolError, UsageError
from support.anything import ANYTHING

MACHINE = HostMachine("b.1", VmState.SAVED, "why", "base", 1 << 28, 2, 8 << 30, {"site": "cern"})
LARGEST = MACHINE._replace(labels={f"{number:03}" + "€" * 252: "€" * 255 for number in range(48)})


def test_there_and_back() -> None:
    others = [MACHINE, MACHINE._replace(id="b.2", disk=None, why="", labels={})]
    page, more = encode_page(others)
    assert (read_page(page, "b"), more) == (others, False)
    assert encode_page([]) == (b"", False)
    assert read_page(b"", "b") == []


def test_a_page_has_room_for_the_largest_description() -> None:
    many = [LARGEST._replace(id=f"b.{number}") for number in range(9)]
    page, more = encode_page(many)
    assert more
    assert PAGE <= len(page) <= MOST_DATA
    found = read_page(page, "b")
    assert found == many[: len(found)]


def test_no_machine_has_the_address_of_a_controller() -> None:
    with pytest.raises(UsageError):
        check_id(controller_id("b"))


WRONG: list[dict[str, object]] = [
    {"id": "a.1"}, {"id": "b"}, {"id": "bb.1"}, {"id": "b.@controller"}, {"id": "b.."},
    {"id": "b." + "x" * 64}, {"id": None}, {"state": "dancing"}, {"state": None}, {"why": 1},
    {"image": None}, {"image": "a\nb"}, {"image": "x" * 256}, {"memory": -1}, {"memory": 1.5},
    {"memory": True}, {"cpus": 0}, {"cpus": 1 << 20}, {"disk": "8G"}, {"labels": []},
    {"labels": {"a": 1}}, {"labels": {"a": "\x1b"}}, {"labels": {"\ud800": ""}},
    {"labels": {str(number): "" for number in range(49)}},
]  # fmt: skip


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_what_is_none(change: dict[str, object]) -> None:
    with pytest.raises(GuestProtocolError):
        read_machine({**MACHINE.table(), **change}, "b")


def test_a_reason_becomes_one_short_line() -> None:
    found = read_machine({**MACHINE.table(), "why": "a\n\x1b[2J" + "b" * 9999}, "b")
    assert found.why.startswith("a[2Jbb")
    assert len(found.why) <= 500


@given(some.dictionaries(some.sampled_from([*MACHINE._fields]), ANYTHING) | ANYTHING)
def test_anything_is_a_machine_or_refused(value: object) -> None:
    whole = {**MACHINE.table(), **value} if isinstance(value, dict) else value
    try:
        read_page(json.dumps(whole).encode(), "b")
    except GuestProtocolError:
        pass


@given(some.binary(max_size=80))
def test_any_bytes_are_a_page_or_refused(data: bytes) -> None:
    try:
        read_page(data, "b")
    except GuestProtocolError:
        pass
