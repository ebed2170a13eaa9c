"""A program to run in a guest, and how it ended."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple, Self

from boincvm.controller.protocol.envelope import LONGEST_TABLE, Envelope
from boincvm.errors import GuestProtocolError, UsageError
from boincvm.json_value import LARGEST

MOST_STDIN = 1 << 16
LONGEST_ID = 128
LARGEST_SIGNAL = 64
_OUR_SHARE = 4096
"""Bytes of a CMD_RUN's fields that do not belong to the request."""
_LARGEST_CODE = 255
_LONGEST_ERROR = 1000
_MOST_RESOURCES = 32

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
            and all(_is_argument(text) for text in (*argv, *environment, *environment.values()))
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
    hint: str = ""
    """What to do about `error`; empty if there is no advice, or from older guests."""

    @classmethod
    def failed(cls, error: str, stdout: int = 0, stderr: int = 0, *, hint: str = "") -> Self:
        """Return the result of a program that did not start, or whose end is unknown."""
        return cls(None, None, error, {}, stdout, stderr, hint=hint)

    def fields(self) -> dict[str, object]:
        """Return the fields of a CMD_RESULT."""
        end: dict[str, object]
        if self.code is not None:
            end = {"code": self.code}
        elif self.signal is not None:
            end = {"signal": self.signal}
        else:
            end = {"error": self.error, **({"hint": self.hint} if self.hint else {})}
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
        signal = envelope.whole("signal", LARGEST_SIGNAL) if "signal" in fields else None
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
        sizes = envelope.whole("stdout"), envelope.whole("stderr")
        return cls(
            code,
            signal,
            _shown(error),
            numbers,
            *sizes,
            timed_out=envelope.flag("timed-out"),
            hint=_shown(envelope.any_text("hint")) if error else "",
        )


def _shown(text: str) -> str:
    return "".join(filter(str.isprintable, text[:_LONGEST_ERROR]))
