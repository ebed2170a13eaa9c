"""What a guest is on the bus: its id, and how it describes itself."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from boincvm.bus.topics import is_destination
from boincvm.controller.protocol.messages import GUEST
from boincvm.errors import GuestProtocolError, UsageError
from boincvm.job.values import describe

BEAT = 10.0
"""Seconds between two STILL_ALIVE of a guest."""
_MOST_LABELS = 64
_LONGEST = 255
_EVERYBODY = "all"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Guest(NamedTuple):
    """As it described itself. labels: whatever its owner wants to address it by;
    capabilities: what its agent can do; instance: another one each time that it was started."""

    id: str
    name: str
    host: str = ""
    labels: Mapping[str, str] = {}
    capabilities: frozenset[str] = frozenset()
    instance: str = ""


def check_guest(guest: Guest) -> None:
    """Raises GuestProtocolError."""
    words = [
        guest.id,
        guest.name,
        guest.host,
        guest.instance,
        *guest.labels,
        *guest.labels.values(),
    ]
    words += guest.capabilities
    if not guest.id or len(guest.labels) > _MOST_LABELS or len(guest.capabilities) > _MOST_LABELS:
        raise GuestProtocolError("a guest without an id, or with too many labels")
    if any(len(word) > _LONGEST or not word.isprintable() for word in words):
        raise GuestProtocolError("a guest describes itself with words that are too long, or none")


def check_id(value: object) -> str:
    """A machine's id; it becomes a file name and a word on the bus. Raises UsageError."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise UsageError(
            f"found {describe(value)}, expected a machine's name:"
            " up to 64 of A-Z a-z 0-9 . _ -, a letter or digit first"
        )
    if value == _EVERYBODY or not is_destination(GUEST + value):
        raise UsageError(
            f"found {describe(value)}, which cannot be addressed on the bus",
            hint="all means everybody; dots stand between words, of which there are 15 at most",
        )
    return value
