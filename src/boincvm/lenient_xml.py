"""A parser for XML as BOINC's files use it, as lenient as BOINC's own (lib/parse.cpp).

It reads elements, text, comments and CDATA, and skips attributes and `<?…?>`; names are
case-sensitive. A header is optional, a closing tag that closes nothing is skipped, a `&` that
begins no entity stands for itself, and anything after the outermost element is ignored. What such a
file never needs but a hostile one may use is refused: a DOCTYPE or any other declaration, NUL, and
unlimited depth or number of tags.

The document has no encoding: names and texts are bytes, decoded as by `byte_text`. During parsing
each byte is one character, as in Latin-1.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass, field

from boincvm.byte_text import decoded, without_entities

LARGEST_DOCUMENT = 1 << 20
"""Bytes."""
MOST_TAGS = 50_000
"""Maximum number of opening and closing tags together."""
DEEPEST_ELEMENT = 32

WHITE_SPACE = " \t\n\v\f\r"
"""The characters that C's isspace accepts; Unicode has more, which BOINC does not skip."""

_LONGEST_SHOWN = 40
_NUL = re.compile(r"&#0+;")
_NAME = re.compile(rf"[^{WHITE_SPACE}]+")


class XmlError(ValueError):
    """The document is invalid; `found` and `expected` are parts of a sentence."""

    def __init__(self, line: int, found: str, expected: str) -> None:
        super().__init__(f"line {line}: found {found}, expected {expected}")
        self.line = line
        self.found = found
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a document.

    `text` is all text directly inside, with entities replaced and surrounding white space removed.
    `line`, from 1, is where the element begins. `is_closed_by_itself` is set for `<name/>`, which
    BOINC distinguishes from `<name></name>`.
    """

    name: str
    text: str
    children: tuple["Element", ...]
    line: int
    is_closed_by_itself: bool = False


def parse(data: bytes, *, maximum: int = LARGEST_DOCUMENT) -> Element:
    """Parse `data` and return its outermost element.

    Raises XmlError if the bytes are invalid or more than `maximum`.
    """
    if len(data) > maximum:
        raise XmlError(1, f"{len(data)} bytes", f"at most {maximum}")
    nul = data.find(b"\0")
    if nul >= 0:
        raise XmlError(data.count(b"\n", 0, nul) + 1, "a NUL character", "text")
    return _build(data.removeprefix(BOM_UTF8).decode("latin-1"))


@dataclass(slots=True)
class _Open:
    """An element whose end tag has not been read yet."""

    name: str
    line: int
    texts: list[str] = field(default_factory=list)
    children: list[Element] = field(default_factory=list)

    def closed(self, *, by_itself: bool) -> Element:
        text = "".join(self.texts).strip(WHITE_SPACE)
        return Element(_text(self.name), _text(text), tuple(self.children), self.line, by_itself)


def _build(text: str) -> Element:
    tree = _Tree()
    count = 0
    for kind, value, line in _pieces(text):
        if kind == "text":
            tree.text(_without_entities(value, line), line)
            continue
        if kind == "verbatim":
            tree.text(value, line)
            continue
        count += 1
        if count > MOST_TAGS:
            raise XmlError(line, f"more than {MOST_TAGS} tags", "fewer")
        if kind != "end":
            tree.start(value, line)
        if kind != "start":
            outermost = tree.end(value, by_itself=kind == "empty")
            if outermost is not None:
                return outermost
    raise tree.unclosed()


class _Tree:
    """The open elements, the outermost first."""

    def __init__(self) -> None:
        self._open: list[_Open] = []

    def text(self, text: str, line: int) -> None:
        if self._open:
            self._open[-1].texts.append(text)
            return
        seen = text.strip(WHITE_SPACE)
        if seen:
            line += text.count("\n", 0, text.index(seen))
            raise XmlError(line, f"the text {_shown(seen)}", "an element first")

    def start(self, name: str, line: int) -> None:
        if len(self._open) == DEEPEST_ELEMENT:
            expected = f"at most {DEEPEST_ELEMENT}"
            raise XmlError(line, "elements nested too deeply", expected)
        self._open.append(_Open(name, line))

    def end(self, name: str, *, by_itself: bool) -> Element | None:
        """Close the element `name` and return it if it is the outermost; ignore a stray end tag."""
        if name not in [element.name for element in self._open]:
            return None
        if self._open[-1].name != name:
            raise self.unclosed()
        element = self._open.pop().closed(by_itself=by_itself)
        if not self._open:
            return element
        self._open[-1].children.append(element)
        return None

    def unclosed(self) -> XmlError:
        """Return the error for a document that ends at this point."""
        if not self._open:
            return XmlError(1, "no element", "one")
        last = self._open[-1]
        found = f"{_shown(f'<{last.name}>')} without its end"
        return XmlError(last.line, found, _shown(f"</{last.name}>"))


def _pieces(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield (kind, text or name, line) in linear time; kinds: text, verbatim, start, empty, end."""
    position, line = 0, 1
    while position < len(text):
        begin = text.find("<", position)
        if begin < 0:
            begin = len(text)
        if begin > position:
            yield "text", text[position:begin], line
            line += text.count("\n", position, begin)
        if begin == len(text):
            return
        end, kind, value = _markup(text, begin, line)
        if kind:
            yield kind, value, line
        line += text.count("\n", begin, end)
        position = end


def _markup(text: str, begin: int, line: int) -> tuple[int, str, str]:
    """Return where the markup that starts at `begin` ends, its kind ("": skip it) and its name."""
    if text.startswith("<!--", begin):
        return _end(text, begin + 4, "-->", "comment", line), "", ""
    if text.startswith("<![CDATA[", begin):
        end = _end(text, begin + 9, "]]>", "CDATA", line)
        return end, "verbatim", text[begin + 9 : end - 3]
    end = _end(text, begin, ">", "tag", line)
    inside = text[begin + 1 : end - 1]
    if inside.startswith("?"):
        return end, "", ""
    if inside.startswith("!"):
        expected = "no DOCTYPE, no custom entities and no other declaration"
        raise XmlError(line, _shown(f"<{inside}>"), expected)
    if "<" in inside:
        expected = "a > before the next < (in text, write < as &lt;)"
        raise XmlError(line, _shown(text[begin:end]), expected)
    kind = "start"
    if inside.startswith("/"):
        kind, inside = "end", inside[1:]
    elif inside.rstrip(WHITE_SPACE).endswith("/"):
        kind, inside = "empty", inside.rstrip(WHITE_SPACE)[:-1]
    name = _NAME.match(inside)
    if name is None:
        raise XmlError(line, _shown(text[begin:end]), "a tag with a name (&lt; stands for a <)")
    return end, kind, name[0]


def _end(text: str, begin: int, mark: str, what: str, line: int) -> int:
    """Return the index after the next `mark`."""
    at = text.find(mark, begin)
    if at < 0:
        raise XmlError(line, f"a {what} that does not end", f"a {mark} after it")
    return at + len(mark)


def _without_entities(text: str, line: int) -> str:
    if "&" not in text:
        return text
    nul = _NUL.search(text)
    if nul is not None:
        nul_line = line + text.count("\n", 0, nul.start())
        raise XmlError(nul_line, f"the entity {_shown(nul[0])}", "a character's number")
    return without_entities(text.encode("latin-1")).decode("latin-1")


def _text(text: str) -> str:
    """Decode `text`, one character per byte, as the system decodes bytes."""
    return text if text.isascii() else decoded(text.encode("latin-1"))


def _shown(text: str) -> str:
    """Shorten `text` to one line for a message."""
    stripped = _text(text)
    return repr(stripped if len(stripped) <= _LONGEST_SHOWN else stripped[:_LONGEST_SHOWN] + "…")
