"""A TOML file whose errors name the line: `FILE:LINE: found X, expected Y`."""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from boincvm.errors import JobFileError
from boincvm.job.toml_lines import Position, line_numbers, longest_key, tokens
from boincvm.job.values import UnexpectedValueError, describe
from boincvm.similar_names import did_you_mean

LARGEST_FILE = 1 << 20
"""Bytes."""

_MOST_DOTS = 16
_LONGEST_NUMBER = 4300
_LONGEST_REASON = 120
_SYNTAX_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

Value = TypeVar("Value")
Default = TypeVar("Default")


class Kind(NamedTuple):
    """What a file is, for messages."""

    name: str
    page: str
    """The page of the documentation that lists its keys."""


JOB = Kind("a job file", "job-toml")


class Source:
    """The file: its name, and the line of every value."""

    def __init__(self, path: Path, lines: Mapping[Position, int], kind: Kind = JOB) -> None:
        self._path = path
        self._lines = lines
        self._kind = kind

    def fault(self, position: Position, found: str, expected: str) -> JobFileError:
        """Return the error for what is at `position`, or around it if nothing is there."""
        while position and position not in self._lines:
            position = position[:-1]
        line = self._lines.get(position, 1)
        return _fault(self._path, line, found, expected, kind=self._kind)

    def convert(
        self, position: Position, value: object, convert: Callable[[object], Value]
    ) -> Value:
        """Convert `value`, which is at `position`, by `convert`."""
        try:
            return convert(value)
        except UnexpectedValueError as error:
            raise self.fault(position, error.found, error.expected) from error


class Table:
    """One table of the file. Its methods raise JobFileError."""

    def __init__(self, source: Source, position: Position, value: object) -> None:
        if not isinstance(value, dict):
            raise source.fault(position, describe(value), "a table")
        self._source = source
        self._position = position
        self._values: dict[str, object] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def fault(self, key: str, found: str, expected: str) -> JobFileError:
        return self._source.fault((*self._position, key), found, expected)

    def check_keys(self, known: tuple[str, ...], elsewhere: Mapping[str, tuple[str, ...]]) -> None:
        """Refuse keys that are not `known`; `elsewhere` are other tables' keys, for hints."""
        for key in self._values:
            if key in known:
                continue
            advice = ""
            tables = [table for table, keys in elsewhere.items() if key in keys]
            similar = did_you_mean(key, known).strip()
            if tables:
                advice = f" (did you mean {key} in {tables[0]}?)"
            elif similar:
                advice = f" ({similar})"
            raise self.fault(key, f"the unknown key {describe(key)}", ", ".join(known) + advice)

    def get(
        self, key: str, convert: Callable[[object], Value], default: Default
    ) -> Value | Default:
        """Return the value of `key`, converted by `convert`, or `default`."""
        return self.require(key, convert) if key in self._values else default

    def require(self, key: str, convert: Callable[[object], Value]) -> Value:
        """Return the value of `key`, which must exist, converted by `convert`."""
        if key not in self._values:
            raise self._source.fault(self._position, f"no {key}", f"the key {key}")
        return self._source.convert((*self._position, key), self._values[key], convert)

    def key(self, key: str, convert: Callable[[object], Value]) -> Value:
        """Return `key` itself, converted, for keys that the file's author chooses."""
        return self._source.convert((*self._position, key), key, convert)

    def table(self, key: str) -> "Table":
        """Return the table beneath `key`, or an empty one."""
        return Table(self._source, (*self._position, key), self._values.get(key, {}))

    def entries(self, key: str, expected: str, most: int) -> list["Entry"]:
        """Return the elements of the array beneath `key`, at most `most`; by default none."""
        value = self._values.get(key, [])
        if not isinstance(value, list):
            raise self.fault(key, describe(value), expected)
        if len(value) > most:
            raise self.fault(key, describe(value), f"at most {most} of them")
        position = (*self._position, key)
        return [Entry(self._source, (*position, i), element) for i, element in enumerate(value)]


class Entry:
    """One element of an array, whose type is checked only when it is used."""

    def __init__(self, source: Source, position: Position, value: object) -> None:
        self._source = source
        self._position = position
        self._value = value

    @property
    def is_table(self) -> bool:
        return isinstance(self._value, dict)

    def table(self) -> Table:
        return Table(self._source, self._position, self._value)

    def value(self, convert: Callable[[object], Value]) -> Value:
        return self._source.convert(self._position, self._value, convert)

    def fault(self, found: str, expected: str) -> JobFileError:
        return self._source.fault(self._position, found, expected)


def read_table(path: Path, kind: Kind = JOB) -> Table:
    """Return the file's outermost table. Raises JobFileError, whatever the file contains."""
    text = _read_text(path, kind)
    dots, line = longest_key(text)
    if dots > _MOST_DOTS:
        raise _fault(path, line, f"a key with {dots} dots", f"at most {_MOST_DOTS}", kind=kind)
    try:
        document = tomllib.loads(text)
        return Table(Source(path, line_numbers(text), kind), (), document)
    except RecursionError as error:
        raise _fault(path, 1, "too many brackets inside brackets", "a few", kind=kind) from error
    except tomllib.TOMLDecodeError as error:
        raise _syntax_fault(path, text, error) from error
    except ValueError as error:  # from int(), for a number that is too long
        line = next((t.line for t in tokens(text) if len(t.text) > _LONGEST_NUMBER), 1)
        found = "a number that is too long"
        raise _fault(path, line, found, "a shorter one", kind=kind) from error


def _read_text(path: Path, kind: Kind) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise JobFileError(
            f"{_shown(path)}: found no readable file ({error.strerror}), expected {kind.name}",
            hint=f"boincvm help {kind.page} shows one to start from",
        ) from error
    if len(content) > LARGEST_FILE:
        raise _fault(path, 1, "more than 1 MiB", f"{kind.name} of at most 1 MiB", kind=kind)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"the byte {content[error.start]:#04x}"
        raise _fault(path, line, found, "UTF-8 text", kind=kind) from error


def _syntax_fault(path: Path, text: str, error: tomllib.TOMLDecodeError) -> JobFileError:
    message = str(error)
    match = _SYNTAX_POSITION.search(message)
    lines = text.split("\n")
    number = int(match[1]) if match and match[1] else text.rstrip().count("\n") + 1
    reason = message[: match.start()] if match else message
    return _fault(
        path,
        number,
        describe(lines[number - 1].strip()),
        f"valid TOML ({reason[:_LONGEST_REASON]})",
        hint='strings are written in quotes, like memory = "512M"',
    )


def _fault(
    path: Path, line: int, found: str, expected: str, hint: str = "", *, kind: Kind = JOB
) -> JobFileError:
    return JobFileError(
        f"{_shown(path)}:{line}: found {found}, expected {expected}",
        hint=hint or f"boincvm help {kind.page} lists every key",
    )


def _shown(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() else repr(text)
