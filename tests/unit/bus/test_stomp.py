"""The STOMP codec: what goes in comes out, however it is cut; nothing else ever breaks it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.bus import stomp
from boincvm.bus.stomp import Frame, Parser, StompError, encode

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n:\\"), max_size=20)


def frames() -> st.SearchStrategy[Frame]:
    def of(command: str) -> st.SearchStrategy[Frame]:
        text = PLAIN if command in ("CONNECT", "CONNECTED") else TEXT
        names = text.filter(lambda name: name not in ("", "content-length"))
        headers = st.dictionaries(names, text, max_size=5)
        return st.builds(Frame, st.just(command), headers, st.binary(max_size=40))

    return st.sampled_from(sorted(stomp.COMMANDS)).flatmap(of)


def encoded(frame: Frame) -> bytes:
    return encode(frame.command, frame.headers, frame.body)


def without_length(frame: Frame) -> Frame:
    frame.headers.pop("content-length", None)
    return frame


@given(st.lists(frames(), min_size=1, max_size=4), st.lists(st.integers(0, 400), max_size=6))
def test_frames_survive_any_cut(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(encoded(frame) + b"\n" for frame in sent)
    parser = Parser()
    received: list[Frame] = []
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in zip(places, places[1:], strict=False):
        received += parser.feed(data[start:end])
    assert [without_length(frame) for frame in received] == sent


@given(frames())
def test_a_frame_survives_the_cut_at_every_byte(sent: Frame) -> None:
    data = encoded(sent)
    for cut in range(len(data) + 1):
        parser = Parser()
        received = parser.feed(data[:cut]) + parser.feed(data[cut:])
        assert [without_length(frame) for frame in received] == [sent]


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_no_bytes_at_all_break_the_parser(pieces: list[bytes]) -> None:
    parser = Parser(maximum_body=50)
    try:
        for piece in pieces:
            for frame in parser.feed(piece):
                assert len(frame.body) <= 50
    except StompError:
        pass  # the one thing that may happen


@given(frames(), st.data())
def test_no_altered_frame_breaks_the_parser(frame: Frame, data: st.DataObject) -> None:
    text = bytearray(encoded(frame))
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255))
    try:
        Parser().feed(bytes(text))
    except StompError:
        pass  # the one thing that may happen


def test_what_a_header_may_hold_is_escaped() -> None:
    text = encode("SEND", {"a:b": "c\\d\ne\rf"})
    assert text == b"SEND\na\\cb:c\\\\d\\ne\\rf\n\n\0"


def test_line_ends_and_heart_beats_between_frames_are_skipped() -> None:
    (frame,) = Parser().feed(b"\n\r\n\nSEND\r\nname:value\r\n\r\nbody\0\n\n")
    assert frame == Frame("SEND", {"name": "value"}, b"body")


def test_the_first_of_repeated_headers_counts() -> None:
    (frame,) = Parser().feed(b"SEND\nname:one\nname:two\n\n\0")
    assert frame.headers == {"name": "one"}


def test_connect_is_not_unescaped() -> None:
    (frame,) = Parser().feed(b"CONNECT\nname:a\\nb:c\n\n\0")
    assert frame.headers == {"name": "a\\nb:c"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HELLO\n\n\0", "'HELLO' is not a STOMP command"),
        (b"send\n\n\0", "'send' is not a STOMP command"),
        (b"SEND\nno colon\n\n\0", "'no colon' is not a header"),
        (b"SEND\n:empty\n\n\0", "':empty' is not a header"),
        (b"SEND\nname:a:b\n\n\0", "an unescaped colon"),
        (b"SEND\nname:\\t\n\n\0", r"\\t is not an escape"),
        (b"SEND\nname:\\\n\n\0", "a lone backslash"),
        (b"SEND\nname:\xff\n\n\0", "not UTF-8"),
        (b"SEND\ncontent-length:-1\n\n\0", "content-length '-1'"),
        (b"SEND\ncontent-length:1e3\n\n\0", "content-length '1e3'"),
        (b"SEND\ncontent-length:2\n\nabc\0", "no NUL byte after the body"),
        (b"SEND\ncontent-length:101\n\n", "a body of 101 bytes; at most 100"),
        (b"SEND\n\n" + b"x" * 101, "a body of more than 100 bytes"),
        (b"SEND\n" + b"n:v\n" * 65 + b"\n\0", "more than 64 headers"),
        (b"SEND\nname:" + b"x" * stomp.MAXIMUM_HEAD, "a head of more than"),
        (b"SEND\nname:" + b"x" * stomp.MAXIMUM_HEAD + b"\n\n\0", "a head of more than"),
    ],
)
def test_what_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(StompError, match=words):
        Parser(maximum_body=100).feed(data)


def test_nothing_more_is_buffered_than_the_caps_allow() -> None:
    parser = Parser(maximum_body=1000)
    with pytest.raises(StompError):
        for _ in range(100):
            parser.feed(b"SEND\nname:value" + b"x" * 1000)
