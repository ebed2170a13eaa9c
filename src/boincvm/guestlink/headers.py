"""Reads numbers that the guest wrote: one that is out of bounds ends the link."""

from collections.abc import Mapping

from boincvm.bus.stomp import StompError

LARGEST = 1 << 62
_LONGEST = 20
_DIGITS = {8: "01234567", 10: "0123456789"}


def number(headers: Mapping[str, str], name: str, most: int = LARGEST, *, base: int = 10) -> int:
    """Return the header `name` as a number from 0 to `most`. Raises StompError."""
    text = headers.get(name, "")
    if not text or len(text) > _LONGEST or text.strip(_DIGITS[base]):
        raise StompError(f"{name} is {text[:_LONGEST]!r}, not a number")
    value = int(text, base)
    if value > most:
        raise StompError(f"{name} is {value}, more than {most}")
    return value
