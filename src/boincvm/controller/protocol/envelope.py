"""Encode and decode the messages between controller and guests.

    NAME                          a name in capitals
    NAME {"cmd-id": "7", …}       with a JSON object of fields, on one line
    NAME {…} LF bytes             and with data, such as output

The names are those of CERN's VM Controller of 2009, where it had one. The class of each message
says what it means; messages.py lists them.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from boincvm.errors import GuestProtocolError
from boincvm.json_value import LARGEST, is_number, is_whole

HOST, GUEST = "/topic/host.", "/topic/guest."
"""Prefixes of an id: the topics to which a guest sends, and from which it receives."""
GUEST_FRAMES = 2000.0
"""Frames a second that a guest may send to the embedded broker before it is throttled."""
LONGEST_TABLE = 64 << 10
"""Bytes of the JSON object, at most."""
_LONGEST_TEXT = 255
_NAME = re.compile(rb"[A-Z][A-Z_]{0,39}")

Send = Callable[[str, bytes], None]
"""Sends the guest with that id a message, which may get lost."""


def is_part_of(guest_id: str, part: str) -> bool:
    """Tell whether an id is `part` or begins with it and a dot."""
    return guest_id == part or guest_id.startswith(part + ".")


class Envelope(NamedTuple):
    """A message whose name is known, and whose fields are not checked yet.

    The methods return a field's value and raise GuestProtocolError if it is invalid.
    """

    name: str
    fields: Mapping[str, object]
    data: bytes = b""

    def text(self, key: str) -> str:
        """Return a short line of text that is not empty."""
        value = self.fields.get(key)
        if isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LONGEST_TEXT:
            return value
        raise self.invalid(key)

    def whole(self, key: str, most: int = LARGEST) -> int:
        """Return a whole number from 0 to `most`."""
        value = self.fields.get(key)
        if is_whole(value, most=most):
            return value
        raise self.invalid(key)

    def number(self, key: str, most: float) -> float:
        """Return a number from 0 to `most`."""
        value = self.fields.get(key)
        if is_number(value, most):
            return float(value)
        raise self.invalid(key)

    def optional_number(self, key: str, most: float) -> float | None:
        """Return a number from 0 to `most`, or None if the field is missing."""
        return None if self.fields.get(key) is None else self.number(key, most)

    def flag(self, key: str) -> bool:
        """Tell whether the field is true; never raises."""
        return self.fields.get(key) is True

    def any_text(self, key: str, default: str = "") -> str:
        """Return a text of any length, with any characters."""
        value = self.fields.get(key, default)
        if isinstance(value, str):
            return value
        raise self.invalid(key)

    def invalid(self, key: str) -> GuestProtocolError:
        """Return the error that says that a field is invalid."""
        return GuestProtocolError(f"the field {key!r} of {self.name} is missing or invalid")


def pack(name: str, fields: Mapping[str, object] | None = None, data: bytes = b"") -> bytes:
    """Return a message's bytes. Raises ValueError if the fields are too large."""
    if fields is None:
        return name.encode()
    text = json.dumps(fields, separators=(",", ":")).encode()
    if len(text) > LONGEST_TABLE:
        raise ValueError(f"the fields of {name} have {len(text)} bytes")
    return b"%b %b\n%b" % (name.encode(), text, data)


def unpack(body: bytes) -> Envelope:
    """Decode a message. Raises GuestProtocolError."""
    end = body.find(b"\n", 0, LONGEST_TABLE + _LONGEST_TEXT)
    line, data = (body, b"") if end < 0 else (body[:end], body[end + 1 :])
    name, _, text = line.partition(b" ")
    if not _NAME.fullmatch(name) or len(text) > LONGEST_TABLE:
        raise GuestProtocolError("a message on the bus has no name, or is too long")
    try:
        fields = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        raise GuestProtocolError("a message on the bus is not valid JSON") from None
    if not isinstance(fields, dict):
        raise GuestProtocolError("a message on the bus has JSON that is not an object")
    return Envelope(name.decode(), fields, data)
