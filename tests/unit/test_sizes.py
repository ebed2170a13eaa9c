"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boincvm.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        (" 2 GiB ", 2 << 30),
        ("2GB", 2 << 30),
        ("1.5K", 1536),
        ("1T", 1 << 40),
        ("7B", 7),
    ],
)
def test_a_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1e3", "1P", "1.G", ".5G", "1 2", "1M1", "0x10"])
def test_no_size(text):
    with pytest.raises(ValueError, match="expected a number and a unit, like 512M"):
        parse_size(text)


@given(st.floats(min_value=0, max_value=2**53, allow_nan=False))
def test_a_formatted_size_reads_back_as_nearly_the_same(size):
    back = parse_size(format_size(size))
    assert abs(back - size) <= max(1.0, 0.06 * size)


@given(st.integers(min_value=0, max_value=1023), st.sampled_from(["", "K", "M", "G", "T"]))
def test_whole_numbers_of_a_unit_are_exact(count, unit):
    size = parse_size(f"{count}{unit}")
    assert size == count * 1024 ** " KMGT".index(unit or " ")
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("size", [0, 1023, 1024, 10**9, 2**60])
def test_at_most_a_short_text(size):
    assert len(format_size(size)) <= len("1048576.0 TiB")
