"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        (" 0.5 ", 0.5),
        ("90s", 90),
        ("2h", 7200),
        ("2 H", 7200),
        ("1h30m", 5400),
        ("1h 30m 5.25s", 5405.25),
        ("1.5d", 129600),
        ("0", 0),
    ],
)
def test_a_duration(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "-1", "1e3", "1w", "1h30", "1:30", "٣s", "9" * 400, "inf"]
)
def test_no_duration(text):
    with pytest.raises(ValueError, match="expected seconds, or one like 2h or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "0.25s"),
        (59.9996, "1m"),
        (60, "1m"),
        (90.5, "1m30.5s"),
        (7200, "2h"),
        (90061, "1d1h1m1s"),
    ],
)
def test_a_formatted_duration(seconds, text):
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**9))
def test_whole_seconds_read_back_the_same(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.floats(min_value=0, max_value=10**8, allow_nan=False))
def test_any_duration_reads_back_to_the_millisecond(seconds):
    assert abs(parse_duration(format_duration(seconds)) - seconds) <= 0.0006
