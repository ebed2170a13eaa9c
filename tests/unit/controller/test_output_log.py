"""A log of output keeps the last part of it, with its offsets."""

from hypothesis import given
from hypothesis import strategies as st

from boincvm.controller.protocol.output_log import OutputLog


@given(st.lists(st.binary(max_size=9)), st.integers(1, 12), st.integers(0, 80), st.integers(0, 20))
def test_it_is_the_end_of_what_came(
    pieces: list[bytes], capacity: int, offset: int, most: int
) -> None:
    log = OutputLog(capacity)
    for piece in pieces:
        log.append(piece)
    whole = b"".join(pieces)
    assert (log.first, log.end) == (max(len(whole) - capacity, 0), len(whole))
    begin, data = log.read(offset, most)
    assert begin == min(max(offset, log.first), log.end)
    assert data == whole[begin : begin + most]


@given(st.binary(max_size=20), st.integers(-5, 30))
def test_what_is_dropped_is_gone(data: bytes, before: int) -> None:
    log = OutputLog(100)
    log.append(data)
    log.drop(before)
    assert log.first == min(max(before, 0), len(data))
    assert (log.end, log.read(0, 100)[1]) == (len(data), data[log.first :])


def test_what_was_skipped_is_not_there() -> None:
    log = OutputLog(100)
    log.append(b"abc")
    log.skip(7)
    log.append(b"d")
    assert (log.first, log.end, log.read(0, 100)) == (7, 8, (7, b"d"))
