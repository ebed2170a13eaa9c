"""Durations in seconds as people write them: `90`, `2h`, `1h30m`, `0.5s`."""

import re

_NUMBER = r"\d{1,15}(?:\.\d{1,15})?"
_PLAIN = re.compile(_NUMBER, re.ASCII)
_PART = re.compile(rf"({_NUMBER})\s*([dhms])\s*", re.ASCII | re.IGNORECASE)
_PARTS = re.compile(rf"(?:{_PART.pattern})+", re.ASCII | re.IGNORECASE)
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(text: str) -> float:
    """Return `text` in seconds; a bare number means seconds.

    Raises ValueError with what was expected.
    """
    trimmed = text.strip()
    if _PLAIN.fullmatch(trimmed):
        return float(trimmed)
    if _PARTS.fullmatch(trimmed) is None:
        raise ValueError(f"{text!r} is not a duration; expected seconds, or one like 2h or 1h30m")
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in _PART.findall(trimmed))


def format_duration(seconds: float) -> str:
    """Format `seconds` (not negative) to the millisecond, readable for `parse_duration`."""
    rest = round(seconds * 1000)
    parts: list[str] = []
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, round(_UNITS[unit] * 1000))
        if count:
            parts.append(f"{count}{unit}")
    if rest or not parts:
        parts.append(f"{rest / 1000:g}s")
    return "".join(parts)
