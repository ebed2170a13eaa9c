"""The parameters of an operation, their kinds, and the checked arguments of a call."""

import re
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from boincvm.errors import UsageError
from boincvm.job.values import describe
from boincvm.json_value import Json, is_number, is_whole

LONGEST_TEXT = 1 << 17
MOST_ITEMS = 4096
# Half of a surrogate pair, which cannot be encoded.
_SURROGATE = re.compile("[\ud800-\udfff]")


class Kind(Enum):
    """The kind of a parameter; its value describes it in messages."""

    TEXT = "a text"
    WHOLE = "a whole number, not negative"
    NUMBER = "a number, not negative"
    FLAG = "true or false"
    TEXTS = "a list of texts"
    TABLE = "a table of texts"


class Parameter(NamedTuple):
    """A parameter of an operation."""

    name: str
    kind: Kind
    help: str
    is_required: bool = False
    default: Json = None
    """The value where none is given; None stands for no value."""


class Arguments:
    """The arguments of a call: for each parameter a value of its kind, or None."""

    def __init__(self, parameters: tuple[Parameter, ...], given: Mapping[str, object]) -> None:
        """Raises UsageError."""
        known = {parameter.name for parameter in parameters}
        for name in given:
            if name not in known:
                expected = ", ".join(sorted(known)) or "none"
                raise UsageError(f"found the unknown parameter {name[:64]!r}, expected: {expected}")
        self._values: dict[str, object] = {}
        for parameter in parameters:
            value = given.get(parameter.name)
            if value is None:
                if parameter.is_required:
                    raise UsageError(f"the parameter {parameter.name} is missing")
                value = parameter.default
            elif not _fits(parameter.kind, value):
                raise UsageError(
                    f"parameter {parameter.name}: found {describe(value)},"
                    f" expected {parameter.kind.value}"
                )
            self._values[parameter.name] = value

    def text(self, name: str) -> str:
        """Return the text of a parameter that always has one."""
        return str(self._values[name])

    def maybe_text(self, name: str) -> str | None:
        value = self._values[name]
        return None if value is None else str(value)

    def whole(self, name: str) -> int:
        return int(self._values[name])  # type: ignore[call-overload, no-any-return]

    def maybe_whole(self, name: str) -> int | None:
        return None if self._values[name] is None else self.whole(name)

    def number(self, name: str) -> float:
        return float(self._values[name])  # type: ignore[arg-type]

    def maybe_number(self, name: str) -> float | None:
        return None if self._values[name] is None else self.number(name)

    def flag(self, name: str) -> bool:
        return bool(self._values[name])

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._values[name])  # type: ignore[arg-type]

    def table(self, name: str) -> dict[str, str]:
        return dict(self._values[name])  # type: ignore[call-overload, no-any-return]

    def table_of(self, parameters: tuple[Parameter, ...]) -> dict[str, Json]:
        """Return the values of these parameters by name, as another controller takes them."""
        return {parameter.name: self._values[parameter.name] for parameter in parameters}  # type: ignore[misc]


def _fits(kind: Kind, value: object) -> bool:
    if kind is Kind.FLAG:
        return isinstance(value, bool)
    if kind is Kind.WHOLE:
        return is_whole(value)
    if kind is Kind.NUMBER:
        return is_number(value)
    if kind is Kind.TEXTS:
        return isinstance(value, list) and len(value) <= MOST_ITEMS and all(map(_is_text, value))
    if kind is Kind.TABLE:
        return (
            isinstance(value, dict)
            and len(value) <= MOST_ITEMS
            and all(map(_is_text, value))
            and all(map(_is_text, value.values()))
        )
    return _is_text(value)


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value or len(value) > LONGEST_TEXT:
        return False
    return _SURROGATE.search(value) is None
