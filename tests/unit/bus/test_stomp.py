"""The codec: round trips however the bytes are cut, caps, and never another exception."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.bus import stomp
from boincvm.bus.stomp import Frame, Parser, StompError, encode

COMMANDS = sorted(stomp.COMMANDS - {"CONNECT", "CONNECTED"})
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
names = texts.filter(lambda name: name not in ("", "content-length"))
frames = st.builds(
    Frame,
    st.sampled_from(COMMANDS),
    st.dictionaries(names, texts, max_size=5),
    st.binary(max_size=200),
)


def parse(data: bytes, *, step: int | None = None) -> list[Frame]:
    parser = Parser()
    step = step or max(len(data), 1)
    found = []
    for start in range(0, len(data), step):
        found += parser.feed(data[start : start + step])
    return found


def wire(frame: Frame) -> bytes:
    return encode(frame.command, frame.headers, frame.body)


def as_received(frame: Frame) -> Frame:
    length = {"content-length": str(len(frame.body))} if frame.body else {}
    return Frame(frame.command, {**frame.headers, **length}, frame.body)


@given(st.lists(frames, max_size=4), st.integers(1, 60))
def test_frames_survive_any_cutting_of_the_bytes(sent: list[Frame], step: int) -> None:
    data = b"\n".join(map(wire, sent)) + b"\n\r\n"
    assert parse(data, step=step) == [as_received(frame) for frame in sent]


@given(st.binary(max_size=300), st.integers(1, 40))
def test_any_bytes_give_frames_or_a_stomp_error(data: bytes, step: int) -> None:
    try:
        parse(data, step=step)
    except StompError:
        pass


@given(frames, st.data())
def test_a_damaged_frame_gives_frames_or_a_stomp_error(frame: Frame, data: st.DataObject) -> None:
    content = bytearray(wire(frame))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    try:
        parse(bytes(content))
    except StompError:
        pass


def test_lines_may_end_with_carriage_returns() -> None:
    data = b"SEND\r\nname:value\r\ncontent-length:3\r\n\r\na\0b\0\r\n"
    assert parse(data) == [Frame("SEND", {"name": "value", "content-length": "3"}, b"a\0b")]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_two_ends_of_a_head_that_share_a_line_end(step: int) -> None:
    """Found by the fuzzer: all at once, the later one was taken."""
    data = b"SEND\ndestination:a\n\r\n\nbody\0"
    parser = Parser()
    found = [
        frame for at in range(0, len(data), step) for frame in parser.feed(data[at : at + step])
    ]
    assert found == [Frame("SEND", {"destination": "a"}, b"\nbody")]


def test_of_repeated_headers_the_first_counts() -> None:
    assert parse(b"SEND\nname:1\nname:2\n\n\0")[0].headers == {"name": "1"}


def test_headers_of_connect_are_not_escaped() -> None:
    assert parse(b"CONNECT\npasscode:a\\nb:c\n\n\0")[0].headers == {"passcode": "a\\nb:c"}
    assert encode("CONNECT", {"passcode": "a\\nb"}) == b"CONNECT\npasscode:a\\nb\n\n\0"


def test_a_body_without_a_length_ends_at_the_first_nul() -> None:
    assert [frame.body for frame in parse(b"SEND\n\nab\0SEND\n\n\0")] == [b"ab", b""]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HELLO\n\n\0", "not a STOMP command"),
        (b"SEND\nno colon\n\n\0", "not a header"),
        (b"SEND\n:empty\n\n\0", "not a header"),
        (b"SEND\na:b:c\n\n\0", "colon"),
        (b"SEND\na:\\t\n\n\0", "escape"),
        (b"SEND\na:b\\\n\n\0", "backslash"),
        (b"SEND\na:\xff\n\n\0", "UTF-8"),
        (b"SEND\ncontent-length:-1\n\n\0", "not a number"),
        (b"SEND\ncontent-length:1e3\n\n\0", "not a number"),
        (b"SEND\ncontent-length:1\n\nab\0", "no NUL"),
        (b"SEND\ncontent-length:1048577\n\n", "at most"),
        (b"SEND\ncontent-length:99999999999999999999\n\n", "not a number"),
        (b"SEND\n" + b"a:b\n" * 65 + b"\n\0", "headers"),
        (b"SEND\na:" + b"x" * (16 << 10), "head"),
        (b"SEND\na:" + b"x" * (16 << 10) + b"\n\n\0", "head"),
        (b"SEND\n\n" + b"x" * ((1 << 20) + 1), "body"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(StompError, match=reason):
        parse(data)
    with pytest.raises(StompError, match=reason):
        parse(data, step=4096)


def test_the_largest_body_passes() -> None:
    body = bytes(stomp.MAXIMUM_BODY)
    assert parse(encode("SEND", {}, body), step=1 << 16)[0].body == body
