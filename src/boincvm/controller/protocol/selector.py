"""Select the guests that a request is for: `1.2.7`, `1.2.*`, `site=cern,cpus>=2`, or `all`.

    selector   = "all" | ids | conditions
    ids        = words between dots; in a word `*` is any part of it, the word `**` any words
    conditions = condition { "," condition }                    all of them must hold
    condition  = label | "!" label | label operator value       it has the label, or has it not
    operator   = "=" | "!=" | ">=" | "<=" | ">" | "<"

The last four compare numbers and do not match a label that is not a number. `!=` also matches
guests without the label. A single word is an id; a label alone must be part of a longer selector,
such as `gpu,site=cern`, or be written `gpu!=`.
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from boincvm.errors import UsageError

LONGEST = 1024
_MOST_STARS = 8
_IDS = re.compile(r"[A-Za-z0-9_:@+*-]+(\.[A-Za-z0-9_:@+*-]+)*")
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,62}")
_VALUE = re.compile(r"[^,=<>!]*")
_OPERATOR = re.compile(r"!=|>=|<=|=|>|<")
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


class Addressed(Protocol):
    """Anything that a selector can match."""

    @property
    def id(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str]: ...


class Condition(NamedTuple):
    """A condition on one label."""

    label: str
    sign: str
    """An operator, "has" or "lacks"."""
    value: str = ""

    def holds(self, labels: Mapping[str, str]) -> bool:
        found = labels.get(self.label)
        if self.sign in ("has", "lacks"):
            return (found is not None) == (self.sign == "has")
        if self.sign == "!=":
            return found != self.value
        if found is None or self.sign == "=":
            return found == self.value
        try:
            return _ORDERS[self.sign](float(found), float(self.value))
        except ValueError:
            return False


class Selector(NamedTuple):
    """A parsed selector."""

    text: str
    """The selector as it was written."""
    only: str | None = None
    """The id, if the selector is a single id."""
    ids: re.Pattern[str] | None = None
    conditions: tuple[Condition, ...] = ()

    def matches(self, guest: Addressed) -> bool:
        if self.only is not None:
            return guest.id == self.only
        if self.ids is not None:
            return self.ids.fullmatch(guest.id) is not None
        return all(condition.holds(guest.labels) for condition in self.conditions)


def parse_selector(text: str) -> Selector:
    """Parse a selector. Raises UsageError, which says where the error is."""
    if not text or len(text) > LONGEST:
        raise _fault(text, 0, f"1 to {LONGEST} characters")
    if text == "all":
        return Selector(text)
    if _OPERATOR.search(text) is None and "," not in text and not text.startswith("!"):
        return _ids(text)
    conditions: list[Condition] = []
    at = 0
    while True:
        condition, at = _condition(text, at)
        conditions.append(condition)
        if at == len(text):
            return Selector(text, conditions=tuple(conditions))
        if text[at] != ",":
            raise _fault(text, at, "a comma or the end")
        at += 1


def _ids(text: str) -> Selector:
    match = _IDS.match(text)
    if match is None or match.end() < len(text):
        raise _fault(text, match.end() if match else 0, "an id, a pattern of ids, or all")
    if "*" not in text:
        return Selector(text, only=text)
    if text.count("*") > _MOST_STARS:
        raise _fault(text, text.rindex("*"), f"at most {_MOST_STARS} stars")
    segments = [".+" if segment == "**" else _segment(segment) for segment in text.split(".")]
    return Selector(text, ids=re.compile(r"\.".join(segments)))


def _segment(segment: str) -> str:
    return "[^.]+" if segment == "*" else re.escape(segment).replace(r"\*", "[^.]*")


def _condition(text: str, at: int) -> tuple[Condition, int]:
    lacks = text[at : at + 1] == "!"
    at += lacks
    match = _LABEL.match(text, at)
    if match is None:
        raise _fault(text, at, "a label")
    label, at = match[0], match.end()
    sign = _OPERATOR.match(text, at)
    if lacks or sign is None:
        return Condition(label, "lacks" if lacks else "has"), at
    found = _VALUE.match(text, sign.end())
    value = found[0] if found else ""
    if sign[0] in _ORDERS:
        try:
            float(value)
        except ValueError:
            raise _fault(text, sign.end(), "a number") from None
    return Condition(label, sign[0], value), sign.end() + len(value)


def _fault(text: str, at: int, expected: str) -> UsageError:
    found = repr(text[at : at + 20]) if at < len(text) else "the end"
    return UsageError(
        f"{text[:80]!r} is not a valid selector: column {at + 1} has {found}, expected {expected}",
        hint="give one id, a pattern such as 1.2.*, labels such as site=cern,cpus>=2, or all",
    )
