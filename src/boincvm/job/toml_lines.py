"""Finds the line of each key of a TOML text, which tomllib does not report.

The text has been accepted by tomllib, so this follows the grammar without checking it.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import NamedTuple

Position = tuple[str | int, ...]
"""The place of a value: ("task", 0, "command") is the first task's command."""

DEEPEST_POSITION = 6
"""Keys that are nested more deeply are not recorded; none of ours are."""

_TOKEN = re.compile(
    r"""
      (?P<blank>[ \t\r]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<string>
          \"{3}(?:[^\\]|\\.)*?(?:\"{3,5}|\\?\Z)
        | '{3}.*?(?:'{3,5}|\Z)
        | "(?:[^"\\\n]|\\[^\n])*+"?
        | '[^'\n]*+'?
      )
    | (?P<mark>[\[\]{},=.])
    | (?P<bare>[^\s\#"'\[\]{},=.]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    kind: str
    text: str
    line: int


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of any text, valid TOML or not, in linear time; skip blanks."""
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind != "blank":
            yield Token(kind, match[0], line)
        line += match[0].count("\n")


def longest_key(text: str) -> tuple[int, int]:
    """Return the largest number of dots in one dotted key, and its line.

    tomllib takes quadratic time for such a key (28 s for 64 KiB), so it is looked for first.
    """
    most, most_line, dots = 0, 1, 0
    for token in tokens(text):
        if token.text == ".":
            dots += 1
            if dots > most:
                most, most_line = dots, token.line
        elif token.kind in ("mark", "newline"):
            dots = 0
    return most, most_line


def line_numbers(text: str) -> dict[Position, int]:
    """Return the line of each key, table and array element of a valid TOML text."""
    return _Reader(text).document()


_END = Token("end", "", 0)


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._lines: dict[Position, int] = {}
        self._counts: dict[Position, int] = {}
        self._token = _END
        self._advance()

    def _advance(self) -> Token:
        previous, self._token = self._token, next(self._tokens, _END)
        return previous

    def _skip_newlines(self) -> None:
        while self._token.kind == "newline":
            self._advance()

    def _record(self, base: Position, keys: list[str], line: int) -> Position:
        """Remember where `keys` beneath `base` were first seen; return the whole position."""
        position = base
        for key in keys:
            position = (*position, key) if len(position) < DEEPEST_POSITION else position
            self._lines.setdefault(position, line)
        return position

    def document(self) -> dict[Position, int]:
        table: Position = ()
        self._skip_newlines()
        while self._token is not _END:
            if self._token.text == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip_newlines()
        return self._lines

    def _header(self) -> Position:
        line = self._advance().line
        is_array = self._token.text == "["
        if is_array:
            self._advance()
        table: Position = ()
        keys = self._keys()
        for number, key in enumerate(keys, 1):
            table = self._record(table, [key], line)
            if is_array and number == len(keys):
                self._counts[table] = self._counts.get(table, -1) + 1
            # In a header, the key of an array of tables refers to the array's latest table.
            if table in self._counts:
                table = (*table, self._counts[table])
                self._lines.setdefault(table, line)
        for _ in range(1 + is_array):
            self._advance()
        return table

    def _keys(self) -> list[str]:
        keys = [_key(self._advance())]
        while self._token.text == ".":
            self._advance()
            keys.append(_key(self._advance()))
        return keys

    def _pair(self, table: Position) -> None:
        line = self._token.line
        position = self._record(table, self._keys(), line)
        self._advance()
        self._value(position)

    def _value(self, position: Position) -> None:
        match self._token.text:
            case "[":
                self._array(position)
            case "{":
                self._inline_table(position)
            case _:
                while self._token.kind in ("bare", "string") or self._token.text == ".":
                    self._advance()

    def _array(self, position: Position) -> None:
        self._advance()
        self._skip_newlines()
        index = 0
        while self._token.text != "]":
            element = position
            if len(position) < DEEPEST_POSITION:
                element = (*position, index)
                self._lines.setdefault(element, self._token.line)
            self._value(element)
            index += 1
            self._skip_newlines()
            if self._token.text == ",":
                self._advance()
                self._skip_newlines()
        self._advance()

    def _inline_table(self, position: Position) -> None:
        self._advance()
        while self._token.text != "}":
            self._pair(position)
            if self._token.text == ",":
                self._advance()
        self._advance()


def _key(token: Token) -> str:
    if token.kind != "string":
        return token.text
    if token.text.startswith("'") or "\\" not in token.text:
        return token.text[1:-1]
    key: str = tomllib.loads(f"key = {token.text}")["key"]
    return key
