"""Requests to one guest, and its answers.

A guest executes a request at most once in each of its lives. It keeps the answer until the
controller has received it, and sends it again when asked again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from boincvm import errors
from boincvm.controller.protocol.envelope import Envelope, pack
from boincvm.errors import BoincvmError, GuestProtocolError
from boincvm.exit_codes import ExitCode

MOST_DATA = 256 << 10
"""Bytes of data, beside the fields, of a request or an answer."""
MOST_OPEN = 256
"""Open requests to one guest at the same time."""
MOST_CONFIRMED = 64
"""Ids of received answers in one message."""
LONGEST_ID = 64
_LONGEST_TEXT = 1000
_KINDS = {
    kind.exit_code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BoincvmError) and "exit_code" in vars(kind)
}


class Reply(NamedTuple):
    """A guest's reply to a request that it has executed."""

    table: Mapping[str, object]
    """The fields, as a JSON object."""
    data: bytes = b""
    """At most MOST_DATA bytes."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Asks a guest to do something and to answer."""

    NAME: ClassVar[str] = "ASK"
    ask_id: str
    instance: str
    """The guest's life that is meant."""
    verb: str
    arguments: Mapping[str, object]
    confirmed: tuple[str, ...] = ()
    """Ids of requests whose answers were received and need not be kept any more."""
    data: bytes = b""

    def encode(self) -> bytes:
        """Return the message's bytes. Raises ValueError if they are too many."""
        fields: dict[str, object] = {
            "ask-id": self.ask_id,
            "instance": self.instance,
            "verb": self.verb,
            "arguments": dict(self.arguments),
            "confirmed": list(self.confirmed),
        }
        return pack(self.NAME, fields, self.data)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        ask_id, verb = envelope.text("ask-id"), envelope.text("verb")
        arguments, confirmed = (
            envelope.fields.get("arguments", {}),
            envelope.fields.get("confirmed", []),
        )
        if (
            not isinstance(arguments, dict)
            or not isinstance(confirmed, list)
            or len(confirmed) > MOST_CONFIRMED
            or max(len(ask_id), len(verb)) > LONGEST_ID
            or len(envelope.data) > MOST_DATA
        ):
            raise GuestProtocolError("an ASK on the bus has invalid fields, or is too large")
        names = tuple(name for name in confirmed if isinstance(name, str))
        return cls(ask_id, envelope.any_text("instance"), verb, arguments, names, envelope.data)


@dataclass(frozen=True, slots=True)
class AskTaken:
    """Says that a guest has received a request and is working on it."""

    NAME: ClassVar[str] = "ASK_TAKEN"
    ask_id: str

    def encode(self) -> bytes:
        return pack(self.NAME, {"ask-id": self.ask_id})

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.text("ask-id"))


@dataclass(frozen=True, slots=True)
class Answer:
    """Says that a guest has executed a request, or has failed to."""

    NAME: ClassVar[str] = "ANSWER"
    ask_id: str
    outcome: Reply | BoincvmError
    """An error is of the class that has its exit code."""

    def encode(self) -> bytes:
        outcome = self.outcome
        if isinstance(outcome, Reply):
            fields = {"ask-id": self.ask_id, "result": dict(outcome.table)}
            return pack(self.NAME, fields, outcome.data)
        details = {
            "message": outcome.message[:_LONGEST_TEXT],
            "hint": outcome.hint[:_LONGEST_TEXT],
            "code": int(outcome.exit_code),
        }
        return pack(self.NAME, {"ask-id": self.ask_id, "error": details})

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        ask_id = envelope.text("ask-id")
        error, result = envelope.fields.get("error"), envelope.fields.get("result")
        if isinstance(error, dict) and result is None:
            return cls(ask_id, _read_error(error))
        if not isinstance(result, dict) or error is not None or len(envelope.data) > MOST_DATA:
            raise GuestProtocolError("an ANSWER on the bus has invalid fields, or is too large")
        return cls(ask_id, Reply(result, envelope.data))


def _read_error(table: Mapping[str, object]) -> BoincvmError:
    code = table.get("code")
    if not isinstance(code, int) or isinstance(code, bool) or code not in set(ExitCode):
        code = ExitCode.GUEST_PROTOCOL
    known = ExitCode(code)
    kind = _KINDS.get(known, BoincvmError)
    message = _line(table.get("message")) or "the guest reports a failure without a reason"
    return kind(message, hint=_line(table.get("hint")), exit_code=known)


def _line(value: object) -> str:
    if not isinstance(value, str):
        return ""
    text = " ".join(value[:_LONGEST_TEXT].split())
    return "".join(filter(str.isprintable, text))
