"""The messages of a guest's program, and invalid ones."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.guestlink.status_channel import (
    LONGEST,
    CheckpointCompleted,
    CheckpointWanted,
    Finish,
    FractionDone,
    Operations,
    StatusMessage,
    StatusReader,
    TemporaryExit,
    TrickleUp,
    Upload,
    read_message,
)

MESSAGES: list[tuple[bytes, StatusMessage]] = [
    (b"fraction-done 0.25", FractionDone(0.25)),
    (b"fraction-done 1", FractionDone(1.0)),
    (b"fraction-done 2.5e-1", FractionDone(0.25)),
    (b"checkpoint-wanted", CheckpointWanted()),
    (b"checkpoint-completed", CheckpointCompleted()),
    (b"operations 1e12 300", Operations(1e12, 300.0)),
    (b"trickle-up variety /tmp/a file", TrickleUp("variety", "/tmp/a file")),
    (b"upload out.1", Upload("out.1")),
    (b"temporary-exit 600 1 no licence left", TemporaryExit(600, True, "no licence left")),
    (b"temporary-exit 600 0", TemporaryExit(600, False, "")),
    (b"finish -161 0 file not found", Finish(-161, False, "file not found")),
    (b"finish 0 1 a\x1b[31mb", Finish(0, True, "a [31mb")),
    (b"finish 0 1 caf\xe9", Finish(0, True, os.fsdecode(b"caf\xe9"))),
    (b"upload caf\xe9", Upload(os.fsdecode(b"caf\xe9"))),
    (b"trickle-up a caf\xe9", TrickleUp("a", os.fsdecode(b"caf\xe9"))),
]


@pytest.mark.parametrize(("line", "message"), MESSAGES, ids=lambda value: str(value)[:30])
def test_every_message(line: bytes, message: StatusMessage) -> None:
    assert read_message(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"of-a-newer-guest 1",
        b"fraction-done",
        b"fraction-done nan",
        b"fraction-done inf",
        b"fraction-done -0.5",
        b"fraction-done 1.5",
        b"fraction-done 1_0",
        b"fraction-done \xd9\xa1",
        b"fraction-done 0.5 0.6",
        b"operations 1",
        b"operations 1e999 1",
        b"trickle-up variety",
        b"trickle-up  path",
        b"trickle-up v\x07 path",
        b"upload",
        b"upload a\x00b",
        b"upload \x7f",
        b"temporary-exit -5 0 no",
        b"temporary-exit 99999999999 0 no",
        b"temporary-exit 5 maybe no",
        b"finish 4294967296 0",
        b"finish 0",
    ],
)
def test_what_is_ignored(line: bytes) -> None:
    assert read_message(line) is None


@given(st.binary(max_size=300), st.sampled_from(MESSAGES))
def test_any_bytes_between_messages_are_ignored(
    noise: bytes, known: tuple[bytes, StatusMessage]
) -> None:
    messages = StatusReader().feed(noise + b"\n" + known[0] + b"\n")
    assert messages[-1] == known[1]


@given(st.lists(st.sampled_from(MESSAGES)), st.integers(1, 50))
def test_messages_in_pieces_and_over_two_readers(
    known: list[tuple[bytes, StatusMessage]], size: int
) -> None:
    data = b"".join(line + b"\n" for line, _ in known)
    messages: list[StatusMessage] = []
    unfinished = b""
    for start in range(0, len(data), size):
        reader = StatusReader(unfinished)
        messages += reader.feed(data[start : start + size])
        unfinished = reader.unfinished
    assert messages == [message for _, message in known]


def test_a_line_that_is_too_long_is_dropped_whatever_pieces_it_comes_in() -> None:
    reader = StatusReader()
    for _ in range(100):
        assert reader.feed(b"fraction-done 0.1 " * 100) == []
        assert len(reader.unfinished) <= LONGEST + 1
    longest = b"upload " + b"n" * (LONGEST - 7)
    assert reader.feed(b"\n" + longest + b"\n") == [Upload("n" * (LONGEST - 7))]
    assert reader.feed(longest + b"n\nfraction-done 0\n") == [FractionDone(0.0)]
    assert reader.dropped == 2
