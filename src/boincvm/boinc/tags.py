"""Text between tags, found as BOINC finds it in messages: by substring, not as XML.

Texts are bytes, decoded as by `byte_text`.
"""

from math import isfinite

from boincvm.byte_text import decoded, encoded, without_entities

_WHITE_SPACE = " \t\n\v\f\r"
"""White space by C's isspace; Unicode has more, which BOINC does not strip."""


def element(text: str, name: str) -> str | None:
    """Return the content of the first `<name>…</name>`, stripped; None if it is missing."""
    opening = text.find(f"<{name}>")
    if opening < 0:
        return None
    begin = opening + len(name) + 2
    end = text.find(f"</{name}>", begin)
    return None if end < 0 else text[begin:end].strip(_WHITE_SPACE)


def string(text: str, name: str, default: str = "") -> str:
    """Return the element's text with its entities decoded."""
    found = element(text, name)
    return default if found is None else unescape(found)


def number(text: str, name: str, default: float = 0.0) -> float:
    """Return the element as a number; `default` if it is missing, invalid or not finite."""
    try:
        value = float(element(text, name) or "")
    except ValueError:
        return default
    return value if isfinite(value) else default


def integer(text: str, name: str, default: int = 0) -> int:
    """Return the element as a signed 32-bit integer, or `default`."""
    value = number(text, name, default)
    return int(value) if -(2**31) <= value < 2**31 else default


def boolean(text: str, name: str) -> bool:
    """Return True for `<name/>`, or for an element that holds a number other than 0."""
    return f"<{name}/>" in text or number(text, name) != 0


def unescape(text: str) -> str:
    """Decode the entities that BOINC knows; `&#195;` is one byte."""
    return decoded(without_entities(encoded(text))) if "&" in text else text


def escape(text: str) -> str:
    """Escape `text` for use in an element."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
