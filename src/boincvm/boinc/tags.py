"""Text between tags, found the way BOINC finds it in messages: by substring, not as XML.

Texts are bytes, as `os.fsdecode` has them.
"""

import os
from math import isfinite

from boincvm.byte_text import without_entities

_WHITE_SPACE = " \t\n\v\f\r"
"""What C's isspace calls white space; Unicode has more, which BOINC leaves alone."""


def element(text: str, name: str) -> str | None:
    """What stands in the first `<name>…</name>`, stripped; None where there is none."""
    opening = text.find(f"<{name}>")
    if opening < 0:
        return None
    begin = opening + len(name) + 2
    end = text.find(f"</{name}>", begin)
    return None if end < 0 else text[begin:end].strip(_WHITE_SPACE)


def string(text: str, name: str, default: str = "") -> str:
    """The element's text, its entities replaced."""
    found = element(text, name)
    return default if found is None else unescape(found)


def number(text: str, name: str, default: float = 0.0) -> float:
    """The element as a number; `default` where it is missing, no number, or not finite."""
    try:
        value = float(element(text, name) or "")
    except ValueError:
        return default
    return value if isfinite(value) else default


def integer(text: str, name: str, default: int = 0) -> int:
    """The element as a signed number of 32 bits, or `default`."""
    value = number(text, name, default)
    return int(value) if -(2**31) <= value < 2**31 else default


def boolean(text: str, name: str) -> bool:
    """`<name/>`, or an element that holds a number other than 0."""
    return f"<{name}/>" in text or number(text, name) != 0


def unescape(text: str) -> str:
    """`text` without the entities that BOINC knows; `&#195;` is one byte."""
    return os.fsdecode(without_entities(os.fsencode(text))) if "&" in text else text


def escape(text: str) -> str:
    """`text` such that it can stand in an element."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
