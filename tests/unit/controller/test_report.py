"""Reports of a guest's state, which may contain anything."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from boincvm.controller.guests.hub import Hub
from boincvm.controller.protocol.envelope import Envelope
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import GuestProtocolError
from support.anything import ANYTHING, HUGE
from support.controller.quiet_bus import QuietBus

FIELDS = ("state", "why", "cpu", "memory", "progress", "started_at")


@pytest.mark.parametrize(
    "report",
    [
        Report(VmState.POWERED_OFF),
        Report(VmState.ABORTED, "the host was unplugged"),
        Report(VmState.RUNNING, "", 0.0, 0, 0.0, 0.0),
        Report(VmState.RUNNING, "", 256.0, 1 << 40, 1.0, 1.7e9),
    ],
)
def test_it_is_read_as_it_was_reported(report: Report) -> None:
    assert Report.read(Envelope("STATE", json.loads(json.dumps(report.table())))) == report


def test_words_are_cut_and_cleaned() -> None:
    read = Report.read(Envelope("STATE", {"state": "aborted", "why": "\x1b[2J\ud800" + "x" * 1000}))
    assert read.why == "[2J" + "x" * 495


@pytest.mark.parametrize("state", [None, 1, "", "RUNNING", "on fire", ["running"], {}])
def test_states_that_there_are_not(state: object) -> None:
    with pytest.raises(GuestProtocolError, match="state"):
        Report.read(Envelope("STATE", {"state": state}))


@pytest.mark.parametrize("why", [1, None, ["words"]])
def test_reasons_that_are_no_words(why: object) -> None:
    with pytest.raises(GuestProtocolError):
        Report.read(Envelope("STATE", {"state": "running", "why": why}))


@pytest.mark.parametrize("name", FIELDS[2:])
@pytest.mark.parametrize(
    "value",
    [-1, True, "1", [], {}, HUGE, -HUGE, float("nan"), float("inf"), 1e300],
    ids=lambda value: str(value)[:9],
)
def test_numbers_that_cannot_be(name: str, value: object) -> None:
    with pytest.raises(GuestProtocolError, match=name):
        Report.read(Envelope("STATE", {"state": "running", name: value}))


@given(some.dictionaries(some.sampled_from(FIELDS), ANYTHING | some.just("running")))
def test_anything_is_a_report_or_refused(table: dict[str, object]) -> None:
    try:
        read = Report.read(Envelope("STATE", table))
    except GuestProtocolError:
        return
    json.dumps(read.table(), allow_nan=False)
    assert Report.read(Envelope("STATE", read.table())) == read


@pytest.mark.parametrize(
    "state", ['"memory": ' + "9" * 400, '"started_at": 1e999', '"cpu": NaN', '"why": "\\ud800"']
)
async def test_no_guest_ends_the_controller_by_what_it_tells(state: str) -> None:
    """An exception in a receiver would end the bus, and the controller with it."""
    bus, reports = QuietBus(), list[Report]()
    hub = Hub(bus, on_report=lambda _, report: reports.append(report))
    await hub.open()
    try:
        bus.deliver("1", b"HELLO")
        bus.deliver("1", f'STATE {{"state": "running", {state}}}'.encode())
        bus.deliver("1", b'STATE {"state": "paused"}')
    finally:
        await hub.close()
    assert reports[-1].state is VmState.PAUSED


async def test_only_guests_that_are_known_are_believed() -> None:
    """Nothing is stored for invented ids."""
    bus, received = QuietBus(), list[str]()
    hub = Hub(bus, on_report=lambda guest, _: received.append(guest))
    await hub.open()
    try:
        for number in range(100):
            bus.deliver(f"made-up-{number}", b'STATE {"state": "running"}')
        bus.deliver("1", b"HELLO")
        bus.deliver("1", b'STATE {"state": "running"}')
        bus.deliver("1", b"BYE")
        bus.deliver("1", b'STATE {"state": "running"}')
    finally:
        await hub.close()
    assert received == ["1"]
