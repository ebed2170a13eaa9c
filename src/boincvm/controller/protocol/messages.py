"""All messages of the bus, typed: the one place where bytes become messages.

A message is a dataclass with its name (`NAME`), its fields, `encode()`, which returns its bytes,
and `read(envelope)`, which checks a received message and raises GuestProtocolError.
"""

from typing import get_args

from boincvm.controller.protocol.commands import (
    CommandEnded,
    CommandOutput,
    CommandProgress,
    CommandStarted,
    ForgetCommand,
    GiveInput,
    InputTaken,
    OutputTaken,
    RunCommand,
    SignalCommand,
)
from boincvm.controller.protocol.envelope import Envelope, unpack
from boincvm.controller.protocol.guest import (
    Bye,
    Hello,
    HelloWanted,
    Ping,
    Pong,
    StillAlive,
    Unsupported,
)
from boincvm.controller.protocol.host_machines import HostMachines
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.requests import Answer, Ask, AskTaken
from boincvm.errors import GuestProtocolError

CommandMessage = CommandStarted | CommandOutput | CommandProgress | CommandEnded | InputTaken
"""The messages from a guest about a command."""
FromGuest = (
    Hello
    | StillAlive
    | Bye
    | Report
    | Pong
    | Unsupported
    | AskTaken
    | Answer
    | CommandMessage
    | HostMachines
)
"""The messages from a guest, or from the controller of an invited host."""

CommandOrder = RunCommand | OutputTaken | GiveInput | SignalCommand | ForgetCommand
"""The messages to a guest about a command."""
ToGuest = HelloWanted | Ping | Ask | CommandOrder
"""The messages to a guest."""

_FROM_GUEST: dict[str, type[FromGuest]] = {kind.NAME: kind for kind in get_args(FromGuest)}
_TO_GUEST: dict[str, type[ToGuest]] = {kind.NAME: kind for kind in get_args(ToGuest)}


class UnknownMessageError(GuestProtocolError):
    """A message whose name this version does not know."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not a known message")
        self.name = name


def read_from_guest(body: bytes) -> FromGuest:
    """Read a message from a guest. Raises UnknownMessageError, GuestProtocolError."""
    return from_guest(unpack(body))


def from_guest(envelope: Envelope) -> FromGuest:
    """Check a message from a guest. Raises UnknownMessageError, GuestProtocolError."""
    if envelope.name not in _FROM_GUEST:
        raise UnknownMessageError(envelope.name)
    return _FROM_GUEST[envelope.name].read(envelope)


def read_to_guest(body: bytes) -> ToGuest:
    """Read a message to a guest. Raises UnknownMessageError, GuestProtocolError."""
    return to_guest(unpack(body))


def to_guest(envelope: Envelope) -> ToGuest:
    """Check a message to a guest. Raises UnknownMessageError, GuestProtocolError."""
    if envelope.name not in _TO_GUEST:
        raise UnknownMessageError(envelope.name)
    return _TO_GUEST[envelope.name].read(envelope)
