"""The messages of a program in the guest, one per line, to the FIFO in BOINCVM_STATUS_CHANNEL.

The guest's lines are not trusted: an unknown message, or one with an invalid number, is ignored. So
messages of a newer guest are harmless too.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from boincvm.byte_text import decoded, one_line

LONGEST = 4095
"""Bytes of a line without its end: what one write to a FIFO takes as a whole (PIPE_BUF)."""

_LONGEST_MESSAGE = 300
_INTEGER = re.compile(r"[0-9]{1,10}")
_STATUS = re.compile(r"-?[0-9]{1,10}")
_DECIMAL = re.compile(r"[0-9]{1,40}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?|\.[0-9]{1,40}")
_LARGEST_INTEGER = (1 << 31) - 1


class FractionDone(NamedTuple):
    """`fraction-done 0.25`: the completed fraction, from 0 to 1."""

    fraction: float


class _WithoutValues:
    """Equal to others of its class. (Named tuples without values would all be equal, and false.)"""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


class CheckpointWanted(_WithoutValues):
    """`checkpoint-wanted`: this would be a good moment to save the machine."""


class CheckpointCompleted(_WithoutValues):
    """`checkpoint-completed`: the program has written a checkpoint of its own."""


class Operations(NamedTuple):
    """`operations FLOATING INTEGER`: how many the program has executed since its start."""

    floating: float
    integer: float


class TrickleUp(NamedTuple):
    """`trickle-up VARIETY PATH`: send the text in the guest's file `path` as a trickle message."""

    variety: str
    path: str


class Upload(NamedTuple):
    """`upload NAME`: upload the output with this logical name now."""

    name: str


class TemporaryExit(NamedTuple):
    """`temporary-exit SECONDS NOTICE REASON`: the program wants to be restarted after that time."""

    seconds: int
    notice: bool
    reason: str


class Finish(NamedTuple):
    """`finish STATUS NOTICE MESSAGE`: the program is about to end with this status."""

    status: int
    notice: bool
    message: str


StatusMessage = (
    FractionDone
    | CheckpointWanted
    | CheckpointCompleted
    | Operations
    | TrickleUp
    | Upload
    | TemporaryExit
    | Finish
)


class StatusReader:
    """Splits a status channel's bytes into messages.

    `unfinished`: the beginning of a line, as another reader left it; `dropped`: how many lines were
    too long.
    """

    def __init__(self, unfinished: bytes = b"") -> None:
        self.unfinished = unfinished
        self.dropped = 0

    def feed(self, data: bytes) -> list[StatusMessage]:
        """Return the messages that `data` completes."""
        *lines, rest = (self.unfinished + data).split(b"\n")
        # One byte more than a line may have marks it as too long.
        self.unfinished = rest[: LONGEST + 1]
        messages = []
        for line in lines:
            if len(line) > LONGEST:
                self.dropped += 1
                continue
            message = read_message(line)
            if message is not None:
                messages.append(message)
        return messages


def read_message(line: bytes) -> StatusMessage | None:
    """Return the message in `line`, or None if it is not valid."""
    text = decoded(line)
    name, *values = text.split(" ", 1)
    reader = _READERS.get(name)
    return None if reader is None else reader(values[0].strip(" ") if values else "")


def _fraction_done(text: str) -> StatusMessage | None:
    fraction = _decimal(text)
    return None if fraction is None or fraction > 1 else FractionDone(fraction)


def _operations(text: str) -> StatusMessage | None:
    values = _split(text, 2)
    floating, integer = map(_decimal, values)
    return None if floating is None or integer is None else Operations(floating, integer)


def _trickle_up(text: str) -> StatusMessage | None:
    variety, path = _split(text, 2)
    return TrickleUp(variety, path) if _is_name(variety) and _is_name(path) else None


def _upload(text: str) -> StatusMessage | None:
    return Upload(text) if _is_name(text) else None


def _temporary_exit(text: str) -> StatusMessage | None:
    seconds, notice, reason = _split(text, 3)
    wait = _integer(seconds, _INTEGER)
    if wait is None or notice not in _FLAGS:
        return None
    return TemporaryExit(wait, notice == "1", one_line(reason)[:_LONGEST_MESSAGE])


def _finish(text: str) -> StatusMessage | None:
    status, notice, message = _split(text, 3)
    code = _integer(status, _STATUS)
    if code is None or notice not in _FLAGS:
        return None
    return Finish(code, notice == "1", one_line(message)[:_LONGEST_MESSAGE])


_FLAGS = ("0", "1")
_READERS: dict[str, Callable[[str], StatusMessage | None]] = {
    "fraction-done": _fraction_done,
    "checkpoint-wanted": lambda _: CheckpointWanted(),
    "checkpoint-completed": lambda _: CheckpointCompleted(),
    "operations": _operations,
    "trickle-up": _trickle_up,
    "upload": _upload,
    "temporary-exit": _temporary_exit,
    "finish": _finish,
}


def _split(text: str, count: int) -> Sequence[str]:
    """Return `count` values, of which the last has the rest; empty if there are fewer."""
    values = text.split(" ", count - 1)
    return values + [""] * (count - len(values))


def _is_name(text: str) -> bool:
    return bool(text) and one_line(text) == text


def _decimal(text: str) -> float | None:
    """Return a finite number that is not negative, or None."""
    value = float(text) if _DECIMAL.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def _integer(text: str, pattern: re.Pattern[str]) -> int | None:
    if not pattern.fullmatch(text) or abs(int(text)) > _LARGEST_INTEGER:
        return None
    return int(text)
