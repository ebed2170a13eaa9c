"""Regular expressions for file names, as BOINC's wrapper has them in `<zip_output>`.

BOINC matches by std::regex, whose language is ECMAScript's with POSIX's sets, on bytes. Python's
differs in sets, escapes and repeats, and takes exponential time with some expressions, like
`(a+)+$`. So an expression is compiled to a list of steps here, and no step is tried twice at one
place of a name: the time is at most the expression's length times the name's. Only a back-reference
or a look-ahead can take more; they are stopped at the same number of tries, which is an error.
"""

import os
import re
from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple

MOST_STEPS = 2000
"""For one expression; a repeat counts as often as it is written out: `a{5}` as five."""
LONGEST_NAME = 255
"""Bytes that a file's name may have on Linux."""
_MOST_TRIES = MOST_STEPS * (LONGEST_NAME + 1)


def _between(*ends: str) -> frozenset[int]:
    """Return the bytes from each first character to its last: "az" is all lower-case letters."""
    return frozenset(code for pair in ends for code in range(ord(pair[0]), ord(pair[1]) + 1))


_ALL = frozenset(range(256))
_WORD = _between("09", "AZ", "az", "__")
_SPACE = _between("\t\r", "  ")
_CLASSES = {
    "alnum": _between("09", "AZ", "az"),
    "alpha": _between("AZ", "az"),
    "blank": frozenset(b" \t"),
    "cntrl": _between("\0\x1f", "\x7f\x7f"),
    "d": _between("09"),
    "digit": _between("09"),
    "graph": _between("!~"),
    "lower": _between("az"),
    "print": _between(" ~"),
    "punct": _between("!/", ":@", "[`", "{~"),
    "s": _SPACE,
    "space": _SPACE,
    "upper": _between("AZ"),
    "w": _WORD,
    "xdigit": _between("09", "AF", "af"),
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
"""POSIX's names for the characters of ASCII, in their order."""
_COLLATING = {name: chr(code) for code, name in enumerate(_NAMES)}
_REPEATS = re.compile(r"([*+?]|\{([0-9]+)(?:(,)([0-9]*))?\})(\??)")
_REFERENCE = re.compile("[1-9][0-9]?(?![0-9])")


class NamePatternError(ValueError):
    """An expression is invalid, is too long, or takes too many tries with a name."""


class _Kind(Enum):
    BYTE = auto()
    """Take a byte that is among `members`."""
    CHOICE = auto()
    """Continue at `first`; if that fails, at `second`."""
    JUMP = auto()
    """Continue at `first`."""
    BEGIN = auto()
    END = auto()
    BOUNDARY = auto()
    """Succeed where a word begins or ends."""
    NO_BOUNDARY = auto()
    AHEAD = auto()
    """Match what follows up to its MATCH without taking it; then continue at `first`."""
    NOT_AHEAD = auto()
    OPEN = auto()
    """Begin the group with the number `first`."""
    CLOSE = auto()
    AGAIN = auto()
    """Take again what the group with the number `first` took."""
    MATCH = auto()


class _Step(NamedTuple):
    """One step. `first` and `second` are relative to it, so that steps can be moved."""

    kind: _Kind
    members: frozenset[int] = frozenset()
    first: int = 0
    second: int = 0


_Steps = list[_Step]
_Groups = tuple[int, ...]
"""Where each group last began and ended; -1 if it has not."""


class NamePattern:
    """A compiled expression for file names, made by `compile_name_pattern`."""

    def __init__(self, steps: _Steps, groups: Iterable[int]) -> None:
        """Use these steps; `groups`: the numbers of the groups that are referred to."""
        self._steps = steps
        self._slots = {group: 2 * slot for slot, group in enumerate(sorted(groups))}

    def search(self, name: bytes) -> bool:
        """Return True if the expression matches anywhere in `name`. Raises NamePatternError."""
        search = _Search(self._steps, self._slots, name)
        none = (-1, -1) * len(self._slots)
        # A step that failed at a place from one start fails there from any other.
        tried: set[tuple[int, int, _Groups]] = set()
        return any(
            search.match(0, start, none, tried) is not None for start in range(len(name) + 1)
        )


class _Search:
    """A search in one name, with the tries that it has left."""

    def __init__(self, steps: _Steps, slots: dict[int, int], name: bytes) -> None:
        self._steps = steps
        self._slots = slots
        self._name = name
        self._left = _MOST_TRIES

    def match(
        self, index: int, position: int, groups: _Groups, tried: set[tuple[int, int, _Groups]]
    ) -> _Groups | None:
        """Run the steps from `index` at `position` in the name; return the groups at their MATCH.

        None: they do not match.
        """
        waiting = [(index, position, groups)]
        while waiting:
            state = waiting.pop()
            if state in tried:
                continue
            tried.add(state)
            self._left -= 1
            if self._left < 0:
                raise NamePatternError(f"it takes too long with a name like {self._name[:40]!r}")
            index, position, groups = state
            step = self._steps[index]
            match step.kind:
                case _Kind.MATCH:
                    return groups
                case _Kind.CHOICE:
                    waiting.append((index + step.second, position, groups))
                    waiting.append((index + step.first, position, groups))
                case _Kind.JUMP:
                    waiting.append((index + step.first, position, groups))
                case _Kind.AHEAD | _Kind.NOT_AHEAD:
                    found = self.match(index + 1, position, groups, set())
                    if (found is None) is (step.kind is _Kind.NOT_AHEAD):
                        waiting.append((index + step.first, position, found or groups))
                case _:
                    taken = self._taken(step, position, groups)
                    if taken is not None:
                        groups = self._noted(step, position, groups)
                        waiting.append((index + 1, position + taken, groups))
        return None

    def _taken(self, step: _Step, position: int, groups: _Groups) -> int | None:
        """Return how many bytes the step takes; None if it does not match."""
        name, taken = self._name, 0
        match step.kind:
            case _Kind.BYTE:
                fits, taken = position < len(name) and name[position] in step.members, 1
            case _Kind.BEGIN:
                fits = position == 0
            case _Kind.END:
                fits = position == len(name)
            case _Kind.BOUNDARY | _Kind.NO_BOUNDARY:
                before = position > 0 and name[position - 1] in _WORD
                after = position < len(name) and name[position] in _WORD
                fits = (before is not after) is (step.kind is _Kind.BOUNDARY)
            case _Kind.AGAIN:
                slot = self._slots[step.first]
                begin, end = groups[slot : slot + 2]
                fits, taken = end >= 0 and name.startswith(name[begin:end], position), end - begin
            case _:
                fits = True
        return taken if fits else None

    def _noted(self, step: _Step, position: int, groups: _Groups) -> _Groups:
        if step.kind not in (_Kind.OPEN, _Kind.CLOSE) or step.first not in self._slots:
            return groups
        slot = self._slots[step.first] + (step.kind is _Kind.CLOSE)
        return (*groups[:slot], position, *groups[slot + 1 :])


def compile_name_pattern(text: str) -> NamePattern:
    """Compile an expression that is searched for in a name's bytes.

    Raises NamePatternError for what std::regex refuses, for the few things that it may interpret
    differently than intended, and for what is too long.
    """
    reader = _Reader(os.fsencode(text).decode("latin-1"))  # one character per byte
    try:
        return NamePattern(reader.whole(), reader.referred)
    except RecursionError as error:
        raise NamePatternError("groups nested too deeply") from error


class _Item(NamedTuple):
    """Part of a set: one `character`, or, if that is empty, `members`."""

    character: str = ""
    members: frozenset[int] = frozenset()

    @property
    def bytes(self) -> frozenset[int]:
        return frozenset((ord(self.character),)) if self.character else self.members


_ASSERTIONS = {
    "^": _Kind.BEGIN,
    "$": _Kind.END,
    r"\b": _Kind.BOUNDARY,
    r"\B": _Kind.NO_BOUNDARY,
}


class _Reader:
    """Compiles an expression to steps. `referred`: the groups that are referred to."""

    def __init__(self, text: str) -> None:
        self.referred: set[int] = set()
        self._text = text
        self._position = 0
        self._groups = 0
        self._ended: set[int] = set()

    def whole(self) -> _Steps:
        steps = self._alternatives()
        if self._position < len(self._text):
            raise self._error("a ) without its (")
        return [*steps, _Step(_Kind.MATCH)]

    def _error(self, what: str) -> NamePatternError:
        return NamePatternError(f"{what} at position {self._position}")

    def _peek(self, length: int = 1) -> str:
        return self._text[self._position : self._position + length]

    def _consume(self, length: int = 1) -> str:
        taken = self._peek(length)
        if len(taken) < length:
            raise self._error("an early end")
        self._position += length
        return taken

    def _checked(self, length: int) -> None:
        if length > MOST_STEPS:
            raise self._error(f"more than {MOST_STEPS} steps, with repeats written out,")

    def _alternatives(self) -> _Steps:
        branches: list[_Steps] = [[]]
        while self._peek() not in ("", ")"):
            if self._peek() == "|":
                self._consume()
                branches.append([])
            else:
                branches[-1] += self._term()
            self._checked(sum(len(branch) + 2 for branch in branches))
        steps = branches.pop()
        for branch in reversed(branches):
            choice = _Step(_Kind.CHOICE, first=1, second=len(branch) + 2)
            steps = [choice, *branch, _Step(_Kind.JUMP, first=len(steps) + 1), *steps]
        return steps

    def _term(self) -> _Steps:
        """Read an assertion, or an atom with its repeats."""
        for text, kind in _ASSERTIONS.items():
            if self._peek(len(text)) == text:
                self._consume(len(text))
                return [_Step(kind)]
        for text, kind in (("(?=", _Kind.AHEAD), ("(?!", _Kind.NOT_AHEAD)):
            if self._peek(3) == text:
                steps = self._group(text)
                return [_Step(kind, first=len(steps) + 2), *steps, _Step(_Kind.MATCH)]
        steps = self._atom()
        while found := _REPEATS.match(self._text, self._position):
            self._consume(len(found[0]))
            steps = self._repeated(steps, found)
        return steps

    def _repeated(self, steps: _Steps, found: re.Match[str]) -> _Steps:
        sign, least, comma, most, lazy = found.groups()
        if least is None:
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        else:
            low, high = _number(least), _number(most) if most else None if comma else _number(least)
        if high is not None and high < low:
            raise self._error("a repeat whose maximum is less than its minimum")
        if not steps:
            return steps

        def choice(beyond: int) -> _Step:
            ends = (beyond, 1) if lazy else (1, beyond)
            return _Step(_Kind.CHOICE, first=ends[0], second=ends[1])

        length = len(steps)
        self._checked(length * low + (length + 2 if high is None else (length + 1) * (high - low)))
        again = steps * low
        if high is None:
            return [*again, choice(length + 2), *steps, _Step(_Kind.JUMP, first=-length - 1)]
        for left in range(high - low, 0, -1):
            again += [choice(left * (length + 1)), *steps]
        return again

    def _atom(self) -> _Steps:
        character = self._peek()
        if character == "(":
            return self._group("(?:" if self._peek(3) == "(?:" else "(")
        self._consume()
        if character == "[":
            return [_Step(_Kind.BYTE, self._set())]
        if character == ".":
            return [_Step(_Kind.BYTE, _ALL - frozenset(b"\n\r"))]
        if character == "\\":
            return self._escape()
        if character in "*+?{":
            self._position -= 1
            raise self._error(f"a {character} with nothing to repeat")
        return [_Step(_Kind.BYTE, frozenset((ord(character),)))]

    def _group(self, start: str) -> _Steps:
        self._consume(len(start))
        if start == "(" and self._peek() == "?":
            raise self._error("a group of an unknown kind")
        self._groups += start == "("
        number = self._groups
        steps = self._alternatives()
        if self._peek() != ")":
            raise self._error("a ( without its )")
        self._consume()
        if start != "(":
            return steps
        self._ended.add(number)
        return [_Step(_Kind.OPEN, first=number), *steps, _Step(_Kind.CLOSE, first=number)]

    def _escape(self) -> _Steps:
        """Read what follows a backslash outside a set."""
        if reference := _REFERENCE.match(self._text, self._position):
            number = int(self._consume(len(reference[0])))
            if number not in self._ended:
                raise self._error(f"a reference to group {number}, which has not ended,")
            self.referred.add(number)
            return [_Step(_Kind.AGAIN, first=number)]
        if self._peek() and self._peek() in "123456789":
            raise self._error("a group whose number is too high")
        return [_Step(_Kind.BYTE, self._escaped().bytes)]

    def _escaped(self) -> _Item:
        character = self._consume()
        if character in "dsw":
            return _Item(members=_CLASSES[character])
        if character in "DSW":
            return _Item(members=_ALL - _CLASSES[character.lower()])
        if character in "xu":
            digits = self._consume(2 if character == "x" else 4)
            if not re.fullmatch("[0-9A-Fa-f]+", digits):
                raise self._error(f"an escape \\{character} that is not a number")
            code = int(digits, 16)
            if code > 0xFF:
                raise self._error(f"an escape \\{character}{digits} that is not a byte")
            return _Item(chr(code))
        if character == "c":
            return _Item(self._consume())
        return _Item(_CONTROLS.get(character, character))

    def _set(self) -> frozenset[int]:
        is_negated = self._peek() == "^" and self._consume() == "^"
        members: frozenset[int] = frozenset()
        if self._peek() == "]":  # the empty set, or its complement: unlike POSIX, `]` is no member
            self._consume()
            return _ALL if is_negated else members
        while self._peek() != "]":
            item = self._item()
            if self._peek() == "-" and self._peek(2) != "-]":
                members |= self._range(item)
            else:
                members |= item.bytes
        self._consume()
        return _ALL - members if is_negated else members

    def _range(self, first: _Item) -> frozenset[int]:
        self._consume()
        last = self._item()
        if not first.character or not last.character:
            raise self._error("a range that begins or ends with a class")
        if first.character > last.character:
            raise self._error("a range that ends before it begins")
        members = _between(first.character + last.character)
        if self._peek() == "-":  # a literal hyphen
            members |= _Item(self._consume()).bytes
            if self._peek() == "-":
                raise self._error("a second - after a range")
        return members

    def _item(self) -> _Item:
        character = self._consume()
        if character == "\\":
            if self._peek() and self._peek() in "123456789B":
                raise self._error("an escape that has no meaning in a set")
            if self._peek() == "b":
                self._consume()
                return _Item("\b")
            return self._escaped()
        kind = self._peek()
        if character != "[" or not kind or kind not in ":.=":
            return _Item(character)
        self._consume()
        end = self._text.find(f"{kind}]", self._position)
        if end < 0:
            raise self._error(f"a [{kind} without its end")
        name = self._consume(end - self._position)
        self._consume(2)
        return self._named(kind, name)

    def _named(self, kind: str, name: str) -> _Item:
        if kind == ":":
            if name.lower() not in _CLASSES:
                raise self._error(f"an unknown class {name[:20]!r}")
            return _Item(members=_CLASSES[name.lower()])
        character = name if len(name) == 1 else _COLLATING.get(name, "")
        if not character:
            raise self._error(f"an unknown character {name[:20]!r}")
        if kind == ".":
            return _Item(character)
        both = {character.lower(), character.upper()} if character.isascii() else {character}
        return _Item(members=frozenset(map(ord, both)))


def _number(digits: str) -> int:
    """Read a number, but stop where it is too large anyway, however many digits follow."""
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= len(str(MOST_STEPS)) else MOST_STEPS + 1
