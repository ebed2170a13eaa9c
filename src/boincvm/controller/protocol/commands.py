"""The messages about a command, which runs one program in a guest.

A message may get lost, so whatever is not acknowledged is sent again; offsets count bytes from the
beginning. The command with an id runs at most once in each life of a guest.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from boincvm.controller.protocol.envelope import Envelope, pack
from boincvm.controller.protocol.program import LARGEST_SIGNAL, Request, Result

WINDOW = 1 << 16
"""Bytes of input that a program has not read yet, at most."""
_STREAMS = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class _OnlyCommandId:
    """Carries nothing but the id of the command it is about."""

    NAME: ClassVar[str]
    command_id: str

    def encode(self) -> bytes:
        return pack(self.NAME, {"cmd-id": self.command_id})

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.text("cmd-id"))


# To a guest.


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Run a program; if it runs already or has ended, send its output again from the offsets."""

    NAME: ClassVar[str] = "CMD_RUN"
    command_id: str
    instance: str
    """The guest's life that is meant."""
    request: Request
    stdout: int = 0
    """Bytes of the output that have been received."""
    stderr: int = 0

    def encode(self) -> bytes:
        fields = {
            "cmd-id": self.command_id,
            **self.request.fields(),
            "instance": self.instance,
            "stdout": self.stdout,
            "stderr": self.stderr,
        }
        return pack(self.NAME, fields, self.request.stdin)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(
            envelope.text("cmd-id"),
            envelope.any_text("instance"),
            Request.read(envelope),
            *_offsets(envelope),
        )


@dataclass(frozen=True, slots=True)
class OutputTaken:
    """Output up to these offsets was received and need not be kept any more."""

    NAME: ClassVar[str] = "CMD_TAKEN"
    command_id: str
    stdout: int
    stderr: int
    again: bool = False
    """Send the output after the offsets again."""

    def encode(self) -> bytes:
        fields = {
            "cmd-id": self.command_id,
            "again": self.again,
            "stdout": self.stdout,
            "stderr": self.stderr,
        }
        return pack(self.NAME, fields)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.text("cmd-id"), *_offsets(envelope), envelope.flag("again"))


def _offsets(envelope: Envelope) -> tuple[int, int]:
    """Return the offsets of both streams; a missing one is 0."""
    found = [envelope.whole(name) if name in envelope.fields else 0 for name in _STREAMS]
    return found[0], found[1]


@dataclass(frozen=True, slots=True)
class GiveInput:
    """More standard input; without data it asks how much the guest has."""

    NAME: ClassVar[str] = "CMD_INPUT"
    command_id: str
    offset: int
    """Where `data` begins, counting the input that came in CMD_RUN.

    The guest drops what it has already, and nothing is left out, so that the program gets each
    byte once and in order.
    """
    ends: bool
    """No more input follows."""
    data: bytes

    def encode(self) -> bytes:
        fields = {"cmd-id": self.command_id, "offset": self.offset, "ends": self.ends}
        return pack(self.NAME, fields, self.data)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        offset = envelope.whole("offset")
        return cls(envelope.text("cmd-id"), offset, envelope.flag("ends"), envelope.data)


@dataclass(frozen=True, slots=True)
class SignalCommand:
    """Send a signal to the program."""

    NAME: ClassVar[str] = "CMD_SIGNAL"
    command_id: str
    signal: int

    def encode(self) -> bytes:
        return pack(self.NAME, {"cmd-id": self.command_id, "signal": self.signal})

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.text("cmd-id"), envelope.whole("signal", LARGEST_SIGNAL))


@dataclass(frozen=True, slots=True)
class ForgetCommand(_OnlyCommandId):
    """The result was received and need not be kept any more."""

    NAME: ClassVar[str] = "CMD_FORGET"


# From a guest.


@dataclass(frozen=True, slots=True)
class CommandStarted(_OnlyCommandId):
    """The program has started."""

    NAME: ClassVar[str] = "CMD_STARTED"


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """Some of the program's output."""

    NAME: ClassVar[str] = "CMD_OUTPUT"
    command_id: str
    stream: str
    """"stdout" or "stderr"."""
    offset: int
    """Where `data` begins."""
    first: int
    """The guest does not keep output before this offset any more."""
    data: bytes

    def encode(self) -> bytes:
        fields = {
            "cmd-id": self.command_id,
            "stream": self.stream,
            "offset": self.offset,
            "first": self.first,
        }
        return pack(self.NAME, fields, self.data)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        stream, offset = envelope.text("stream"), envelope.whole("offset")
        if stream not in _STREAMS:
            raise envelope.invalid("stream")
        first = envelope.whole("first") if "first" in envelope.fields else 0
        return cls(envelope.text("cmd-id"), stream, offset, first, envelope.data)


@dataclass(frozen=True, slots=True)
class CommandProgress:
    """The program reports its progress."""

    NAME: ClassVar[str] = "CMD_PROGRESS"
    command_id: str
    fraction: float
    """From 0 to 1."""

    def encode(self) -> bytes:
        return pack(self.NAME, {"cmd-id": self.command_id, "fraction": self.fraction})

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.text("cmd-id"), envelope.number("fraction", 1.0))


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """The program has ended or did not start."""

    NAME: ClassVar[str] = "CMD_RESULT"
    command_id: str
    result: Result

    def encode(self) -> bytes:
        return pack(self.NAME, {"cmd-id": self.command_id, **self.result.fields()})

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.text("cmd-id"), Result.read(envelope))


@dataclass(frozen=True, slots=True)
class InputTaken:
    """Says how much of the standard input has arrived."""

    NAME: ClassVar[str] = "CMD_INPUT_TAKEN"
    command_id: str
    taken: int
    """The program has read the input before this offset."""
    received: int
    """The guest has received the input before this offset."""
    ends: bool
    """The guest knows where the input ends."""
    again: bool = False
    """Send the input after `received` again."""

    def encode(self) -> bytes:
        fields = {
            "cmd-id": self.command_id,
            "offset": self.taken,
            "received": self.received,
            "ends": self.ends,
            "again": self.again,
        }
        return pack(self.NAME, fields)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        received = envelope.whole("received")
        return cls(
            envelope.text("cmd-id"),
            envelope.whole("offset", received),
            received,
            envelope.flag("ends"),
            envelope.flag("again"),
        )
