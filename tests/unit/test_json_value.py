"""Checks of single values in JSON from others."""

import json

import pytest

from boincvm import json_value
from boincvm.json_value import LARGEST


@pytest.mark.parametrize("value", [0, 7, LARGEST])
def test_whole_numbers(value: object) -> None:
    assert json_value.whole(value) == value
    assert json_value.number(value) == value


@pytest.mark.parametrize("value", [-1, LARGEST + 1, 1.0, True, "7", None, [7]])
def test_what_is_no_whole_number(value: object) -> None:
    assert not json_value.is_whole(value)
    with pytest.raises(ValueError, match="a number is missing or invalid"):
        json_value.whole(value)


def test_bounds() -> None:
    assert json_value.is_whole(-3, -3, 3)
    assert not json_value.is_whole(0, 1)
    assert not json_value.is_whole(4, most=3)
    assert json_value.is_number(2.5, 2.5)


@pytest.mark.parametrize("text", ["-0.5", "NaN", "Infinity", "1e400", "true", '"1"', "null"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="a number is missing or invalid"):
        json_value.number(json.loads(text))


def test_texts() -> None:
    assert json_value.text("") == ""
    with pytest.raises(ValueError, match="a text is missing or invalid"):
        json_value.text(b"bytes")
