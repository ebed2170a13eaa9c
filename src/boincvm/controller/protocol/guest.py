"""A guest on the bus: its id, its description, and the messages about its presence."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from boincvm.bus.topics import is_destination
from boincvm.controller.protocol.envelope import GUEST, Envelope, pack
from boincvm.errors import GuestProtocolError, UsageError
from boincvm.job.values import describe

BEAT = 10.0
"""Seconds between two STILL_ALIVE messages of a guest."""
_MOST_LABELS = 64
_LONGEST = 255
_EVERYBODY = "all"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Guest(NamedTuple):
    """A guest as it describes itself."""

    id: str
    name: str
    host: str = ""
    labels: Mapping[str, str] = {}
    """Chosen by its owner, to address it by."""
    capabilities: frozenset[str] = frozenset()
    """What its agent can do."""
    instance: str = ""
    """Identifies one life of the guest: it differs after each start."""


def check_guest(guest: Guest) -> None:
    """Check that a guest's description is within its limits. Raises GuestProtocolError."""
    texts = [
        guest.id,
        guest.name,
        guest.host,
        guest.instance,
        *guest.labels,
        *guest.labels.values(),
        *guest.capabilities,
    ]
    if not guest.id or len(guest.labels) > _MOST_LABELS or len(guest.capabilities) > _MOST_LABELS:
        raise GuestProtocolError("a guest has no id, or too many labels or capabilities")
    if any(len(text) > _LONGEST or not text.isprintable() for text in texts):
        raise GuestProtocolError("a guest's labels or other texts are too long or unprintable")


def check_id(value: object) -> str:
    """Return a machine's id, which becomes a file name and part of a topic. Raises UsageError."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise UsageError(
            f"found {describe(value)}, expected a machine's name:"
            " up to 64 of A-Z a-z 0-9 . _ -, a letter or digit first"
        )
    if value == _EVERYBODY or not is_destination(GUEST + value):
        raise UsageError(
            f"found {describe(value)}, which cannot be an address on the bus",
            hint="`all` means all machines; dots separate parts of a name, at most 15 of them",
        )
    return value


@dataclass(frozen=True, slots=True)
class _NoFields:
    """Carries nothing but its name."""

    NAME: ClassVar[str]

    def encode(self) -> bytes:
        return pack(self.NAME)

    @classmethod
    def read(cls, _envelope: Envelope) -> Self:
        return cls()


@dataclass(frozen=True, slots=True)
class _AnyFields:
    """Carries whatever fields its sender chooses, such as `sign`; a PONG repeats its PING's."""

    NAME: ClassVar[str]
    fields: Mapping[str, object]

    def encode(self) -> bytes:
        return pack(self.NAME, self.fields)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.fields)


@dataclass(frozen=True, slots=True)
class Hello:
    """Announces a guest: sent on each connection, and when the guest is asked to."""

    NAME: ClassVar[str] = "HELLO"
    name: str | None
    """None stands for the guest's id."""
    host: str
    labels: Mapping[str, str]
    capabilities: frozenset[str]
    instance: str

    @classmethod
    def of(cls, guest: Guest) -> Self:
        """Return the message that announces `guest`."""
        return cls(guest.name, guest.host, guest.labels, guest.capabilities, guest.instance)

    def guest(self, guest_id: str) -> Guest:
        """Return the guest described; its id comes from the topic of the message."""
        name = guest_id if self.name is None else self.name
        return Guest(guest_id, name, self.host, self.labels, self.capabilities, self.instance)

    def encode(self) -> bytes:
        fields: dict[str, object] = {
            "name": self.name,
            "host": self.host,
            "labels": dict(self.labels),
            "capabilities": sorted(self.capabilities),
            "instance": self.instance,
        }
        return pack(self.NAME, fields)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        labels = envelope.fields.get("labels", {})
        capabilities = envelope.fields.get("capabilities", [])
        if not isinstance(labels, dict) or not _are_texts(labels.values()):
            raise envelope.invalid("labels")
        if not isinstance(capabilities, list) or not _are_texts(capabilities):
            raise envelope.invalid("capabilities")
        return cls(
            envelope.any_text("name") if "name" in envelope.fields else None,
            envelope.any_text("host"),
            labels,
            frozenset(capabilities),
            envelope.any_text("instance"),
        )


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


@dataclass(frozen=True, slots=True)
class StillAlive(_NoFields):
    """Says that a guest is present: sent every BEAT seconds."""

    NAME: ClassVar[str] = "STILL_ALIVE"


@dataclass(frozen=True, slots=True)
class Bye:
    """Says that a guest leaves."""

    NAME: ClassVar[str] = "BYE"
    comes_back: bool = False
    """The same life, with its commands, goes on later."""

    def encode(self) -> bytes:
        return pack(self.NAME, {"comes-back": True} if self.comes_back else None)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.flag("comes-back"))


@dataclass(frozen=True, slots=True)
class HelloWanted(_NoFields):
    """Asks an unknown guest that sent something to send HELLO."""

    NAME: ClassVar[str] = "HELLO_WANTED"


@dataclass(frozen=True, slots=True)
class Ping(_AnyFields):
    """Asks a guest to answer with PONG at once."""

    NAME: ClassVar[str] = "PING"


@dataclass(frozen=True, slots=True)
class Pong(_AnyFields):
    """Answers a PING."""

    NAME: ClassVar[str] = "PONG"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Says that a guest does not know a message that it was sent."""

    NAME: ClassVar[str] = "AINT"
    message: str
    """The name of the unknown message."""

    def encode(self) -> bytes:
        return pack(self.NAME, {"message": self.message})

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.any_text("message"))
