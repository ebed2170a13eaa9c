"""The type of JSON values, checks of single ones, and descriptions of what is wrong with JSON."""

from typing import TypeGuard

from boincvm.errors import BoincvmError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

LARGEST = (1 << 53) - 1
"""The largest integer that every JSON reader understands (RFC 8259, 6)."""


def is_whole(value: object, least: int = 0, most: int = LARGEST) -> TypeGuard[int]:
    """Tell whether it is a whole number from `least` to `most`; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: object, most: float = LARGEST) -> TypeGuard[int | float]:
    """Tell whether it is a number from 0 to `most`; True, False and NaN are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def text(value: object) -> str:
    """Return a text. Raises ValueError for any other value."""
    if not isinstance(value, str):
        raise ValueError("a text is missing or invalid")  # noqa: TRY004 - what a JSON file says
    return value


def whole(value: object, most: int = LARGEST) -> int:
    """Return a whole number from 0 to `most`. Raises ValueError for any other value."""
    if not is_whole(value, most=most):
        raise ValueError("a number is missing or invalid")
    return value


def number(value: object, most: float = LARGEST) -> float:
    """Return a number from 0 to `most`. Raises ValueError for any other value."""
    if not is_number(value, most):
        raise ValueError("a number is missing or invalid")
    return float(value)


def fault_of(error: Exception) -> str:
    """Describe in plain words what was wrong with JSON whose parsing raised `error`."""
    if isinstance(error, BoincvmError):
        return error.message
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, TypeError | AttributeError):
        return f"a value has the wrong type: {error}"
    return str(error) or type(error).__name__
