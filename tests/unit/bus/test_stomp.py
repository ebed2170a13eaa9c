"""The codec: round trips with any division of the bytes, limits, and no other exception."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.bus import stomp
from boincvm.bus.stomp import Frame, Parser, StompError, encode

COMMANDS = sorted(stomp.COMMANDS - {"CONNECT", "CONNECTED"})
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
names = texts.filter(lambda name: name not in ("", "content-length"))
WITH_BODY = ("SEND", "MESSAGE", "ERROR")
frames = st.builds(
    Frame, st.sampled_from(COMMANDS), st.dictionaries(names, texts, max_size=5)
) | st.builds(
    Frame,
    st.sampled_from(WITH_BODY),
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
    location = data.draw(st.integers(0, len(content) - 1))
    content[location] ^= data.draw(st.integers(1, 255))
    try:
        parse(bytes(content))
    except StompError:
        pass


def test_lines_may_end_with_carriage_returns() -> None:
    data = b"SEND\r\nname:value\r\ncontent-length:3\r\n\r\na\0b\0\r\n"
    assert parse(data) == [Frame("SEND", {"name": "value", "content-length": "3"}, b"a\0b")]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_two_ends_of_a_head_that_share_a_line_end(step: int) -> None:
    """Found by the fuzzer: if all arrived at once, the later end was used."""
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


def test_a_bare_colon_in_a_value_is_a_colon() -> None:
    assert parse(b"SEND\nplace:tcp://a\\cb\n\n\0")[0].headers == {"place": "tcp://a:b"}


@pytest.mark.parametrize("command", sorted(stomp.COMMANDS - set(WITH_BODY)))
@pytest.mark.parametrize("length", ["5", "0", "-1", "x", "99999999"])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_only_a_frame_that_may_have_a_body_has_its_length(
    command: str, length: str, step: int
) -> None:
    """STOMP 1.2, "Body": other frames have none."""
    data = f"{command}\ncontent-length:{length}\n\n\0SEND\n\nbody\0".encode()
    first, second = parse(data, step=step)
    assert (first.command, first.body) == (command, b"")
    assert second == Frame("SEND", {}, b"body")


@pytest.mark.parametrize("headers", [b":a\n", b"x\n", b"x:\xff\n", b"a:b\n" * 65, b"x:\\t\n"])
@pytest.mark.parametrize("length", [b"content-length:4\n", b"content-length:4\r\n"])
@pytest.mark.parametrize("step", [1, 1000])
def test_a_message_with_what_are_no_headers(headers: bytes, length: bytes, step: int) -> None:
    """A broker may let others send such a message; the frames after it are unaffected."""
    bad = b"MESSAGE\nsubscription:s\n" + length + headers + b"\na\0bc\0"
    data = bad + b"MESSAGE\nsubscription:s\n\ngood\0"
    with pytest.raises(StompError):
        parse(data, step=step)
    parser = Parser()
    parser.passes_over_headers = True
    found = [
        frame for at in range(0, len(data), step) for frame in parser.feed(data[at : at + step])
    ]
    assert found == [
        Frame("MESSAGE", {"content-length": "4"}, b"a\0bc"),
        Frame("MESSAGE", {"subscription": "s"}, b"good"),
    ]


def test_frames_before_a_fault_are_reported() -> None:
    with pytest.raises(StompError) as failure:
        parse(b"SEND\na:b\n\n\0HELLO\n\n\0")
    assert failure.value.frames == [Frame("SEND", {"a": "b"})]


def test_a_body_without_a_length_ends_at_the_first_nul() -> None:
    assert [frame.body for frame in parse(b"SEND\n\nab\0SEND\n\n\0")] == [b"ab", b""]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HELLO\n\n\0", "not a STOMP command"),
        (b"SEND\nno colon\n\n\0", "not a header"),
        (b"SEND\n:empty\n\n\0", "not a header"),
        (b"SEND\na:b\rc\n\n\0", "carriage return"),
        (b"SEND\r\r\na:b\n\n\0", "carriage return"),
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
