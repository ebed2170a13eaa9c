"""The words that guests and controller exchange on the bus, one a message.

    WORD                          a name in capitals
    WORD {"cmd-id": "7", …}       with a JSON object, on one line
    WORD {…} LF bytes             and with data, such as output

The names are those of CERN's VM Controller of 2009, where it had one.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from boincvm.errors import GuestProtocolError
from boincvm.json_value import LARGEST

HOST, GUEST = "/topic/host.", "/topic/guest."
"""Before an id: where a guest sends, and where it hears."""
GUEST_FRAMES = 2000.0
"""A second, that a guest may send on the embedded broker; then it is not read for a while."""
LONGEST_TABLE = 64 << 10
"""Bytes of the JSON object."""
_LONGEST_TEXT = 255
_NAME = re.compile(rb"[A-Z][A-Z_]{0,39}")

Post = Callable[[str, bytes], None]
"""Sends a message to the guest with an id; it may get lost."""


def belongs(guest_id: str, part: str) -> bool:
    """Whether it is `part`, or begins with it and a dot."""
    return guest_id == part or guest_id.startswith(part + ".")


class Word(NamedTuple):
    """What was said. Its methods raise GuestProtocolError where the table has no such value."""

    name: str
    table: Mapping[str, object]
    data: bytes

    def text(self, key: str) -> str:
        """A short line of it."""
        value = self.table.get(key)
        if isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LONGEST_TEXT:
            return value
        raise GuestProtocolError(f"a word on the bus has no proper {key!r}")

    def whole(self, key: str, most: int = LARGEST) -> int:
        """A number from 0 to `most`."""
        value = self.table.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
            return value
        raise GuestProtocolError(f"a word on the bus has no proper {key!r}")

    def number(self, key: str, most: float) -> float:
        """A number from 0 to `most`."""
        value = self.table.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most:
            return float(value)
        raise GuestProtocolError(f"a word on the bus has no proper {key!r}")


def encode_word(name: str, table: Mapping[str, object] | None = None, data: bytes = b"") -> bytes:
    """A message's body. Raises ValueError where the table is too large."""
    if table is None:
        return name.encode()
    text = json.dumps(table, separators=(",", ":")).encode()
    if len(text) > LONGEST_TABLE:
        raise ValueError(f"a word's table of {len(text)} bytes")
    return b"%b %b\n%b" % (name.encode(), text, data)


def decode_word(body: bytes) -> Word:
    """Raises GuestProtocolError."""
    end = body.find(b"\n", 0, LONGEST_TABLE + _LONGEST_TEXT)
    line, data = (body, b"") if end < 0 else (body[:end], body[end + 1 :])
    name, _, text = line.partition(b" ")
    if not _NAME.fullmatch(name) or len(text) > LONGEST_TABLE:
        raise GuestProtocolError("something on the bus is no word, or too long for one")
    try:
        table = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        raise GuestProtocolError("a word on the bus has something that is no JSON") from None
    if not isinstance(table, dict):
        raise GuestProtocolError("a word on the bus has JSON that is no object")
    return Word(name.decode(), table, data)
