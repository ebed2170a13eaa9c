"""Messages on the bus: encoded ones can be decoded, and invalid ones are refused."""

from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.controller.protocol.commands import (
    CommandEnded,
    CommandOutput,
    CommandProgress,
    CommandStarted,
    ForgetCommand,
    GiveInput,
    InputTaken,
    OutputTaken,
    RunCommand,
    SignalCommand,
)
from boincvm.controller.protocol.envelope import LONGEST_TABLE, pack, unpack
from boincvm.controller.protocol.guest import (
    Bye,
    Hello,
    HelloWanted,
    Ping,
    Pong,
    StillAlive,
    Unsupported,
)
from boincvm.controller.protocol.host_machines import HostMachines
from boincvm.controller.protocol.messages import (
    FromGuest,
    ToGuest,
    UnknownMessageError,
    read_from_guest,
    read_to_guest,
)
from boincvm.controller.protocol.program import Request, Result
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.requests import Answer, Ask, AskTaken, Reply
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import GuestProtocolError, UsageError

values = st.one_of(st.text(max_size=20), st.integers(0, 1 << 53), st.booleans(), st.none())


@given(st.dictionaries(st.text(max_size=9), values, max_size=4), st.binary(max_size=40))
def test_there_and_back(table: dict[str, object], data: bytes) -> None:
    word = unpack(pack("CMD_RUN", table, data))
    assert (word.name, word.fields, word.data) == ("CMD_RUN", table, data)


@given(st.binary(max_size=60))
def test_anything_is_a_message_or_a_fault_of_the_guest_s(body: bytes) -> None:
    try:
        word = unpack(body)
    except GuestProtocolError:
        return
    assert body.startswith(word.name.encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"HELLO [1]",
        b"HELLO {",
        b"HELLO {}{}",
        b"\xff",
        b"A" * 41,
        b"HELLO " + b"[" * 50_000,
        b"HELLO {" + b" " * LONGEST_TABLE + b"}",
    ],
    ids=lambda body: body[:12],
)
def test_what_is_none(body: bytes) -> None:
    with pytest.raises(GuestProtocolError):
        unpack(body)


def test_a_table_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(ValueError, match="fields"):
        pack("HELLO", {"a": "b" * LONGEST_TABLE})


@pytest.mark.parametrize("value", ["", 1, None, "a\nb", "a" * 256])
def test_a_text_that_is_none(value: object) -> None:
    with pytest.raises(GuestProtocolError):
        unpack(pack("A", {"key": value})).text("key")


@pytest.mark.parametrize("value", ["1", -1, None, True, 1.0, 8])
def test_a_number_that_is_none(value: object) -> None:
    with pytest.raises(GuestProtocolError):
        unpack(pack("A", {"key": value})).whole("key", 7)


FROM_GUESTS: list[FromGuest] = [
    Hello("web", "host", {"site": "cern"}, frozenset({"run", "files"}), "life"),
    StillAlive(),
    Bye(),
    Bye(comes_back=True),
    Report(VmState.RUNNING, "", 0.5, 1 << 30, 0.25, 1.7e9),
    Report(VmState.ABORTED, "the host was unplugged"),
    Pong({"sign": "s"}),
    Unsupported("CMD_DANCE"),
    AskTaken("a"),
    Answer("a", Reply({"state": "paused"}, b"data")),
    CommandStarted("c"),
    CommandOutput("c", "stderr", 10, 4, b"\0\n{"),
    CommandProgress("c", 0.5),
    CommandEnded("c", Result(3, None, "", {"wall_time": 0.5}, 10, 20, timed_out=True)),
    CommandEnded("c", Result(None, 9, "", {}, 10, 20)),
    CommandEnded("c", Result.failed("no such program")),
    CommandEnded("c", Result.failed("no such program", 1, 2, hint="check its name")),
    InputTaken("c", 3, 5, ends=True, again=True),
    HostMachines("life", 7, "host", frozenset({"start", "remove"})),
    HostMachines("life", 0, leaves=True),
]
TO_GUESTS: list[ToGuest] = [
    HelloWanted(),
    Ping({"sign": "s"}),
    Ask("a", "life", "pause", {"within": 3}, ("b", "c"), b"data"),
    RunCommand("c", "life", Request(("cat", "-"), {"A": "b"}, "sub", 2.5, b"in", True), 3, 4),
    OutputTaken("c", 10, 20, again=True),
    GiveInput("c", 3, True, b"more"),
    SignalCommand("c", 15),
    ForgetCommand("c"),
]


@pytest.mark.parametrize("message", FROM_GUESTS, ids=lambda message: message.NAME)
def test_what_a_guest_sends_is_read_as_it_was_sent(message: FromGuest) -> None:
    assert read_from_guest(message.encode()) == message


@pytest.mark.parametrize("message", TO_GUESTS, ids=lambda message: message.NAME)
def test_what_is_sent_to_a_guest_is_read_as_it_was_sent(message: ToGuest) -> None:
    assert read_to_guest(message.encode()) == message


def test_no_message_is_forgotten_here() -> None:
    assert {type(message) for message in FROM_GUESTS} == set(get_args(FromGuest))
    assert {type(message) for message in TO_GUESTS} == set(get_args(ToGuest))


def test_an_error_is_of_the_kind_that_has_its_code() -> None:
    read = read_from_guest(Answer("a", UsageError("no", hint="say yes")).encode())
    assert isinstance(read, Answer)
    assert isinstance(read.outcome, UsageError)
    assert (read.outcome.message, read.outcome.hint) == ("no", "say yes")


@pytest.mark.parametrize("read", [read_from_guest, read_to_guest])
def test_a_name_that_nobody_knows(read: Callable[[bytes], object]) -> None:
    with pytest.raises(UnknownMessageError, match="CMD_DANCE") as caught:
        read(b"CMD_DANCE {}")
    assert caught.value.name == "CMD_DANCE"


def test_each_side_reads_what_is_for_it_alone() -> None:
    with pytest.raises(UnknownMessageError):
        read_from_guest(b"CMD_RUN {}")
    with pytest.raises(UnknownMessageError):
        read_to_guest(b"HELLO {}")
