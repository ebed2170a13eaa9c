"""Conversion of byte strings to text and back without loss.

BOINC has no encoding: a name, an argument or a message is bytes, and only its author knows
what they stand for. Inside the program such bytes are `str` as `os.fsdecode` makes it on POSIX,
whatever the locale; this module converts them. So it is for what guests send. On Windows
`os.fsdecode` fails for bytes that are not UTF-8: there it is for this host's own names alone.
"""

import re
import sys

_ENTITY = re.compile(rb"&(?:#([0-9]{1,20})|#[xX]([aAdD])|(lt|gt|amp|quot|apos));")
_NAMED = {b"lt": b"<", b"gt": b">", b"amp": b"&", b"quot": b'"', b"apos": b"'"}


def decoded(data: bytes) -> str:
    """Return any bytes as a text from which `encoded` makes the same bytes again."""
    return data.decode(sys.getfilesystemencoding(), "surrogateescape")


def encoded(text: str) -> bytes:
    """Return the bytes that `text` came from; characters foreign to the locale become UTF-8."""
    try:
        return _encoded(text)
    except UnicodeEncodeError:
        return b"".join(map(_encoded_character, text))


def _encoded(text: str) -> bytes:
    return text.encode(sys.getfilesystemencoding(), "surrogateescape")


def _encoded_character(character: str) -> bytes:
    try:
        return _encoded(character)
    except UnicodeEncodeError:
        return character.encode(errors="replace")


def without_entities(data: bytes) -> bytes:
    """Replace the entities that BOINC knows (lib/parse.cpp, xml_unescape) and leave all else alone.

    They are XML's five, `&#N;` for the byte N from 1 to 255, and carriage return and line feed in
    hexadecimal. So `&#195;&#169;` is two bytes, é in UTF-8, which is how BOINC's own escaping
    writes it.
    """
    return _ENTITY.sub(_entity, data) if b"&" in data else data


def _entity(match: re.Match[bytes]) -> bytes:
    decimal, hexadecimal, name = match.groups()
    if name is not None:
        return _NAMED[name]
    number = int(decimal) if decimal is not None else int(hexadecimal, 16)
    return bytes([number]) if 0 < number < 256 else match[0]


def one_line(text: str) -> str:
    """Return `text` with unprintable characters replaced by spaces; undecodable bytes are kept."""
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else " " for c in text)
