"""Which files of a directory `.dockerignore` leaves out of a build, as Docker has it.

A line is a path or a pattern from the directory on; `*` and `?` stand for characters of one name,
`**` for any number of directories; `!` takes in again what an earlier line has left out, and the
last line that fits decides. What is beneath a directory that fits, fits as well.
"""

import os
import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple

from boincvm.errors import InputFileError

MOST_RULES = 1000
_LONGEST_LINE = 4096
_DIRECTORIES = None
"""Stands in a pattern for any number of directories, also none."""
_ANY_NAME = re.compile(r"(?s:.+)")


class _Rule(NamedTuple):
    names: tuple[re.Pattern[str] | None, ...]
    """Patterns of names, each of one component of a path, or _DIRECTORIES."""
    leaves_out: bool


class IgnoreRules:
    """The rules in a file like `.dockerignore`."""

    def __init__(self, text: bytes = b"", name: str = ".dockerignore") -> None:
        """Read the file `name`. Raises InputFileError, which names the line."""
        self._rules: list[_Rule] = []
        lines = os.fsdecode(text.removeprefix(b"\xef\xbb\xbf")).splitlines()
        for number, line in enumerate(lines, 1):
            try:
                rule = _rule(line)
            except ValueError as error:
                raise InputFileError(
                    f"{name}, line {number}: {error}", hint="leave the line out, or write it anew"
                ) from error
            if rule is not None:
                self._rules.append(rule)
            if len(self._rules) > MOST_RULES:
                raise InputFileError(
                    f"{name} has more than {MOST_RULES} rules", hint="patterns stand for many files"
                )

    @property
    def has_exceptions(self) -> bool:
        """Tell whether something beneath a directory that is left out may be taken in."""
        return not all(rule.leaves_out for rule in self._rules)

    def fitting(self, path: Sequence[str], above: frozenset[int] = frozenset()) -> frozenset[int]:
        """Return the numbers of the rules that fit `path`, of which `above` fit its directory."""
        fitting = (
            number
            for number, rule in enumerate(self._rules)
            if number not in above and _fits(rule.names, path)
        )
        return above.union(fitting)

    def leaves_out(self, fitting: frozenset[int]) -> bool:
        """Tell whether what these rules fit is left out."""
        return bool(fitting) and self._rules[max(fitting)].leaves_out


def _rule(line: str) -> _Rule | None:
    """Read a line; None if it is empty or a comment. Raises ValueError."""
    if len(line) > _LONGEST_LINE:
        raise ValueError(f"a line of more than {_LONGEST_LINE} characters")
    if line.startswith("#") or not line.strip():
        return None
    text = line.strip()
    leaves_out = not text.startswith("!")
    path = text.removeprefix("!").strip()
    if not path:
        raise ValueError("an exception that names nothing")
    names: list[re.Pattern[str] | None] = []
    for name in posixpath.normpath(path).strip("/").split("/"):
        if name.startswith("**"):
            names.append(_DIRECTORIES)
            name = name.lstrip("*")  # `**name` is `**/name`
        if name:
            names.append(_pattern(name))
    if names and names[-1] is _DIRECTORIES:  # all that is beneath, and not the directory itself
        names.insert(-1, _ANY_NAME)
    return _Rule(tuple(names), leaves_out) if names else None


def _pattern(name: str) -> re.Pattern[str]:
    """Compile the pattern of a name. Raises ValueError.

    Between two `*` the first place that fits is as good as any other, so none is tried twice:
    otherwise matching could take for ever.
    """
    parts = [""]
    at = 0
    while at < len(name):
        character = name[at]
        at += 1
        if character == "*":
            if len(parts) == 1 or parts[-1]:
                parts.append("")
        elif character == "?":
            parts[-1] += "."
        elif character == "[":
            end = name.find("]", at + 1)
            if end < 0:
                raise ValueError(f"a '[' without ']' in {name!a}")
            parts[-1] += _characters(name[at:end])
            at = end + 1
        elif character == "\\" and at < len(name):
            parts[-1] += re.escape(name[at])
            at += 1
        else:
            parts[-1] += re.escape(character)
    first, *middle = parts
    last = f".*{middle.pop()}" if middle else ""
    return re.compile(f"(?s:{first}{''.join(f'(?>.*?{part})' for part in middle)}{last})")


def _characters(text: str) -> str:
    """Return the expression for what stands between brackets. Raises ValueError."""
    negation, text = ("^", text[1:]) if text.startswith("^") else ("", text)
    expression = ""
    at = 0
    while at < len(text):
        low = text[at]
        is_range = text[at + 1 : at + 2] == "-" and at + 2 < len(text)
        high = text[at + 2] if is_range else low
        if high < low:
            raise ValueError(f"a range from {low!a} to {high!a}")
        expression += f"{re.escape(low)}-{re.escape(high)}"
        at += 3 if is_range else 1
    if not expression:
        raise ValueError("brackets with nothing between them")
    return f"[{negation}{expression}]"


def _fits(names: Sequence[re.Pattern[str] | None], path: Sequence[str]) -> bool:
    """Tell whether the patterns fit all of the path; of directories in between, as few as can be.

    If what follows `**` fits at several places, the first is as good as any other.
    """
    name = component = 0
    after, resume = -1, 0
    while component < len(path):
        if name < len(names) and names[name] is _DIRECTORIES:
            after, resume = name + 1, component
            name += 1
        elif name < len(names) and _fits_name(names[name], path[component]):
            name += 1
            component += 1
        elif after >= 0:
            resume += 1
            name, component = after, resume
        else:
            return False
    return all(one is _DIRECTORIES for one in names[name:])


def _fits_name(pattern: re.Pattern[str] | None, name: str) -> bool:
    return pattern is not None and pattern.fullmatch(name) is not None
