"""Regular expressions for names of files, as BOINC's wrapper has them in `<zip_output>`.

It matches by std::regex, whose language is ECMAScript's with POSIX's sets, on bytes. Python's
differs in sets, escapes and repeats, so a pattern is read here and written anew.
"""

import os
import re
from typing import NamedTuple

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r"\x20\t",
    "cntrl": r"\x00-\x1f\x7f",
    "d": "0-9",
    "digit": "0-9",
    "graph": r"\x21-\x7e",
    "lower": "a-z",
    "print": r"\x20-\x7e",
    "punct": r"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    "s": r"\x20\t-\r",
    "space": r"\x20\t-\r",
    "upper": "A-Z",
    "w": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_CONTROLS = {"0": "\0", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_NAMES = """
NUL SOH STX ETX EOT ENQ ACK alert backspace tab newline vertical-tab form-feed carriage-return SO
SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC IS4 IS3 IS2 IS1 space exclamation-mark
quotation-mark number-sign dollar-sign percent-sign ampersand apostrophe left-parenthesis
right-parenthesis asterisk plus-sign comma hyphen period slash zero one two three four five six
seven eight nine colon semicolon less-than-sign equals-sign greater-than-sign question-mark
commercial-at A B C D E F G H I J K L M N O P Q R S T U V W X Y Z left-square-bracket backslash
right-square-bracket circumflex underscore grave-accent a b c d e f g h i j k l m n o p q r s t u
v w x y z left-curly-bracket vertical-line right-curly-bracket tilde DEL
""".split()  # noqa: SIM905
"""The names that POSIX gives to the characters of ASCII, in its order."""
_COLLATING = {name: chr(code) for code, name in enumerate(_NAMES)}
_REPEATS = re.compile(r"([*+?]|\{[0-9]+(?:,[0-9]*)?\})(\??)")
_REFERENCE = re.compile("[1-9][0-9]?(?![0-9])")


def compile_name_pattern(text: str) -> re.Pattern[bytes]:
    """For `search` in a name's bytes. Raises ValueError for what std::regex refuses, and for the
    few things that it may read in another way than is meant."""
    translation = _Translation(os.fsencode(text).decode("latin-1"))  # a character for each byte
    try:
        return re.compile(translation.whole().encode("latin-1"))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error


class _Item(NamedTuple):
    """Part of a set: one `character`, or `written` as Python has it."""

    character: str = ""
    written: str = ""


class _Translation:
    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    def whole(self) -> str:
        written = self._alternatives()
        if self._place < len(self._text):
            raise self._error("a ) without its (")
        return written

    def _error(self, what: str) -> ValueError:
        return ValueError(f"{what} at position {self._place}")

    def _peek(self, length: int = 1) -> str:
        return self._text[self._place : self._place + length]

    def _take(self, length: int = 1) -> str:
        taken = self._peek(length)
        if len(taken) < length:
            raise self._error("an early end")
        self._place += length
        return taken

    def _alternatives(self) -> str:
        written = ""
        while self._peek() not in ("", ")"):
            written += "|" if self._peek() == "|" and self._take() else self._term()
        return written

    def _term(self) -> str:
        """An assertion, or an atom with its repeats."""
        for text, written in (("^", "^"), ("$", r"\Z"), (r"\b", r"\b"), (r"\B", r"\B")):
            if self._peek(len(text)) == text:
                self._take(len(text))
                return written
        for text in ("(?=", "(?!"):
            if self._peek(3) == text:
                return self._group(text)
        written = self._atom()
        while found := _REPEATS.match(self._text, self._place):
            self._take(len(found[0]))
            written = f"(?:{written}){found[0]}"
        return written

    def _atom(self) -> str:
        character = self._peek()
        if character == "(":
            return self._group("(?:" if self._peek(3) == "(?:" else "(")
        self._take()
        if character == "[":
            return self._set()
        if character == ".":
            return r"[^\n\r]"
        if character == "\\":
            return self._escape()
        if character in "*+?{":
            self._place -= 1
            raise self._error(f"a {character} that repeats nothing")
        return re.escape(character)

    def _group(self, start: str) -> str:
        self._take(len(start))
        if start == "(" and self._peek() == "?":
            raise self._error("a group of an unknown kind")
        written = self._alternatives()
        if self._peek() != ")":
            raise self._error("a ( without its )")
        self._take()
        return f"{start}{written})"

    def _escape(self) -> str:
        """What follows a backslash outside a set."""
        if reference := _REFERENCE.match(self._text, self._place):
            return rf"(?:\{self._take(len(reference[0]))})"
        if self._peek() and self._peek() in "123456789":
            raise self._error("a group of too high a number")
        item = self._escaped()
        return f"[{item.written}]" if item.written else re.escape(item.character)

    def _escaped(self) -> _Item:
        character = self._take()
        if character in "dswDSW":
            return _Item(written=f"\\{character}")
        if character in "xu":
            digits = self._take(2 if character == "x" else 4)
            if not re.fullmatch("[0-9A-Fa-f]+", digits):
                raise self._error(f"an escape \\{character} that is no number")
            code = int(digits, 16)
            if code > 0xFF:
                raise self._error(f"an escape \\{character}{digits} that is no byte")
            return _Item(chr(code))
        if character == "c":
            return _Item(self._take())
        return _Item(_CONTROLS.get(character, character))

    def _set(self) -> str:
        negated = self._take() if self._peek() == "^" else ""
        if self._peek() == "]":  # no character, or any: not POSIX's set that has a ] in it
            self._take()
            return r"[\s\S]" if negated else "(?!)"
        written = ""
        while self._peek() != "]":
            item = self._item()
            if self._peek() == "-" and self._peek(2) != "-]":
                written += self._range(item)
            else:
                written += _written(item)
        self._take()
        return f"[{negated}{written}]"

    def _range(self, first: _Item) -> str:
        self._take()
        last = self._item()
        if not first.character or not last.character:
            raise self._error("a range that begins or ends with a class")
        if first.character > last.character:
            raise self._error("a range that ends before it begins")
        written = f"{_written(first)}-{_written(last)}"
        if self._peek() == "-":  # one that stands for itself
            written += _written(_Item(self._take()))
            if self._peek() == "-":
                raise self._error("a second - after a range")
        return written

    def _item(self) -> _Item:
        character = self._take()
        if character == "\\":
            if self._peek() and self._peek() in "123456789B":
                raise self._error("an escape that has no meaning in a set")
            if self._peek() == "b":
                self._take()
                return _Item("\b")
            return self._escaped()
        kind = self._peek()
        if character != "[" or not kind or kind not in ":.=":
            return _Item(character)
        self._take()
        end = self._text.find(f"{kind}]", self._place)
        if end < 0:
            raise self._error(f"a [{kind} without its end")
        name = self._take(end - self._place)
        self._take(2)
        return self._named(kind, name)

    def _named(self, kind: str, name: str) -> _Item:
        if kind == ":":
            if name.lower() not in _CLASSES:
                raise self._error(f"an unknown class {name[:20]!r}")
            return _Item(written=_CLASSES[name.lower()])
        character = name if len(name) == 1 else _COLLATING.get(name, "")
        if not character:
            raise self._error(f"an unknown character {name[:20]!r}")
        if kind == ".":
            return _Item(character)
        return _Item(
            written=_written(_Item(character.lower())) + _written(_Item(character.upper()))
        )


def _written(item: _Item) -> str:
    return item.written or f"\\x{ord(item.character):02x}"
