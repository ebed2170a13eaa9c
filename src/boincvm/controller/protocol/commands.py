"""A command in a guest: the program to run, its result, and the messages about it.

A message may get lost, so whatever is not acknowledged is sent again; offsets count bytes from the
beginning. The command with an id runs at most once in each life of a guest.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from boincvm.controller.protocol.envelope import LONGEST_TABLE, Envelope, pack
from boincvm.errors import GuestProtocolError, UsageError
from boincvm.json_value import LARGEST

MOST_STDIN = 1 << 16
LONGEST_ID = 128
WINDOW = 1 << 16
"""Bytes of input that a program has not read yet, at most."""
_OUR_SHARE = 4096
"""Bytes of a CMD_RUN's fields that do not belong to the request."""
_LARGEST_CODE, _LARGEST_SIGNAL = 255, 64
_LONGEST_ERROR = 1000
_MOST_RESOURCES = 32
_STREAMS = ("stdout", "stderr")

# Half of a surrogate pair, which cannot be encoded; those of PEP 383 stand for bytes.
_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class Request(NamedTuple):
    """A program to run in a guest."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}
    directory: str = ""
    """The working directory, beneath the guest's own; empty stands for that one."""
    timeout: float | None = None
    """Seconds after which the guest kills it."""
    stdin: bytes = b""
    """Its standard input, or the beginning of it with `keep_input`."""
    keep_input: bool = False
    """More input follows."""

    def fields(self) -> dict[str, object]:
        """Return the fields of a CMD_RUN, whose data is the standard input."""
        return {
            "argv": list(self.argv),
            "env": dict(self.environment),
            "directory": self.directory,
            "timeout": self.timeout,
            "keep-input": self.keep_input,
        }

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        """Read the request of a CMD_RUN. Raises GuestProtocolError."""
        fields = envelope.fields
        argv, environment = fields.get("argv"), fields.get("env", {})
        directory, timeout = fields.get("directory", ""), fields.get("timeout")
        keeps = fields.get("keep-input", False)
        is_good = (
            isinstance(argv, list)
            and bool(argv)
            and isinstance(environment, dict)
            and all(_is_argument(one) for one in (*argv, *environment, *environment.values()))
            and _is_argument(directory)
            and (timeout is None or (isinstance(timeout, int | float) and 0 < timeout <= LARGEST))
            and isinstance(keeps, bool)
            and len(envelope.data) <= MOST_STDIN
        )
        if not is_good:
            raise GuestProtocolError("a CMD_RUN on the bus has invalid fields, or is too large")
        return cls(
            tuple(argv),  # type: ignore[arg-type]
            environment,  # type: ignore[arg-type]
            str(directory),
            timeout,  # type: ignore[arg-type]
            envelope.data,
            bool(keeps),
        )


def _is_argument(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value or len(value) > LONGEST_TABLE:
        return False
    return _SURROGATE.search(value) is None


def check_request(request: Request, command_id: str | None) -> None:
    """Check a request, and the id that its client has chosen. Raises UsageError."""
    if not request.argv or not request.argv[0]:
        raise UsageError("a command without a program", hint="name the program, then its arguments")
    if request.timeout is not None and not request.timeout > 0:
        raise UsageError("a timeout of 0 seconds, in which nothing can run")
    if len(request.stdin) > MOST_STDIN:
        raise UsageError(
            f"a standard input of {len(request.stdin)} bytes; the maximum is {MOST_STDIN}",
            hint="send it as a file first, or send it afterwards: keep_input",
        )
    if len(json.dumps(request.fields())) > LONGEST_TABLE - _OUR_SHARE:
        raise UsageError(
            f"arguments and environment are larger than {(LONGEST_TABLE - _OUR_SHARE) >> 10} KiB",
            hint="send them as a file first",
        )
    if command_id is not None and not (
        0 < len(command_id) <= LONGEST_ID and command_id.isprintable()
    ):
        raise UsageError(
            "a command's id must be printable and not empty",
            hint=f"1 to {LONGEST_ID} printable characters",
        )


class Result(NamedTuple):
    """The end of a program (`code` or `signal`), or why it did not start (`error`)."""

    code: int | None
    signal: int | None
    error: str
    resources: Mapping[str, float]
    """The resources that it used, by name, in seconds or bytes."""
    stdout: int = 0
    """Bytes that it wrote there."""
    stderr: int = 0
    timed_out: bool = False
    """The guest killed it because it exceeded its timeout."""

    @classmethod
    def failed(cls, error: str, stdout: int = 0, stderr: int = 0) -> Self:
        """Return the result of a program that did not start, or whose end is unknown."""
        return cls(None, None, error, {}, stdout, stderr)

    def fields(self) -> dict[str, object]:
        """Return the fields of a CMD_RESULT."""
        end: dict[str, object]
        if self.code is not None:
            end = {"code": self.code}
        elif self.signal is not None:
            end = {"signal": self.signal}
        else:
            end = {"error": self.error}
        return {
            **end,
            **({"resources": dict(self.resources)} if self.resources else {}),
            **({"timed-out": True} if self.timed_out else {}),
            "stdout": self.stdout,
            "stderr": self.stderr,
        }

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        """Read the result of a CMD_RESULT. Raises GuestProtocolError."""
        fields = envelope.fields
        code = envelope.whole("code", _LARGEST_CODE) if "code" in fields else None
        signal = envelope.whole("signal", _LARGEST_SIGNAL) if "signal" in fields else None
        error, resources = envelope.any_text("error"), fields.get("resources", {})
        if not isinstance(resources, dict):
            raise envelope.invalid("resources")
        if (code is not None) + (signal is not None) + bool(error) != 1:
            raise GuestProtocolError("a CMD_RESULT needs exactly one of code, signal and error")
        numbers = {
            str(name)[:64]: float(value)
            for name, value in list(resources.items())[:_MOST_RESOURCES]
            if isinstance(value, int | float) and 0 <= value <= LARGEST
        }
        shown = "".join(filter(str.isprintable, error[:_LONGEST_ERROR]))
        sizes = envelope.whole("stdout"), envelope.whole("stderr")
        return cls(code, signal, shown, numbers, *sizes, timed_out=envelope.flag("timed-out"))


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
        return cls(envelope.text("cmd-id"), envelope.whole("signal", _LARGEST_SIGNAL))


@dataclass(frozen=True, slots=True)
class ForgetCommand:
    """The result was received and need not be kept any more."""

    NAME: ClassVar[str] = "CMD_FORGET"
    command_id: str

    def encode(self) -> bytes:
        return pack(self.NAME, {"cmd-id": self.command_id})

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.text("cmd-id"))


# From a guest.


@dataclass(frozen=True, slots=True)
class CommandStarted:
    """The program has started."""

    NAME: ClassVar[str] = "CMD_STARTED"
    command_id: str

    def encode(self) -> bytes:
        return pack(self.NAME, {"cmd-id": self.command_id})

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        return cls(envelope.text("cmd-id"))


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
    heard: int
    """The guest has received the input before this offset."""
    ends: bool
    """The guest knows where the input ends."""
    again: bool = False
    """Send the input after `heard` again."""

    def encode(self) -> bytes:
        fields = {
            "cmd-id": self.command_id,
            "offset": self.taken,
            "heard": self.heard,
            "ends": self.ends,
            "again": self.again,
        }
        return pack(self.NAME, fields)

    @classmethod
    def read(cls, envelope: Envelope) -> Self:
        heard = envelope.whole("heard")
        return cls(
            envelope.text("cmd-id"),
            envelope.whole("offset", heard),
            heard,
            envelope.flag("ends"),
            envelope.flag("again"),
        )
