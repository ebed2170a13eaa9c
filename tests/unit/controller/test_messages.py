"""Words on the bus: what is encoded is decoded, and what is none is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.controller.protocol.messages import LONGEST_TABLE, decode_word, encode_word
from boincvm.errors import GuestProtocolError

values = st.one_of(st.text(max_size=20), st.integers(0, 1 << 53), st.booleans(), st.none())


@given(st.dictionaries(st.text(max_size=9), values, max_size=4), st.binary(max_size=40))
def test_there_and_back(table: dict[str, object], data: bytes) -> None:
    word = decode_word(encode_word("CMD_RUN", table, data))
    assert (word.name, word.table, word.data) == ("CMD_RUN", table, data)


@given(st.binary(max_size=60))
def test_anything_is_a_word_or_a_fault_of_the_guest_s(body: bytes) -> None:
    try:
        word = decode_word(body)
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
        decode_word(body)


def test_a_table_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(ValueError, match="table"):
        encode_word("HELLO", {"a": "b" * LONGEST_TABLE})


@pytest.mark.parametrize("value", ["", 1, None, "a\nb", "a" * 256])
def test_a_text_that_is_none(value: object) -> None:
    with pytest.raises(GuestProtocolError):
        decode_word(encode_word("A", {"key": value})).text("key")


@pytest.mark.parametrize("value", ["1", -1, None, True, 1.0, 8])
def test_a_number_that_is_none(value: object) -> None:
    with pytest.raises(GuestProtocolError):
        decode_word(encode_word("A", {"key": value})).whole("key", 7)
