"""Paths, answers and errors of the Chirp protocol; everything from a server is checked.

A request is a line of words, of which paths are percent-encoded; an answer is a line with a number,
which is an error if it is negative. Lines and data may follow both.
"""

import re
import stat
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from boincvm.errors import BoincvmError, BusError, GuestProtocolError, UsageError
from boincvm.exit_codes import ExitCode

PORT = 9094
LONGEST_LINE = 4096
_LONGEST_REQUEST = 1023
_LONGEST_NAME = 255
_MOST_STEPS = 64
_STAT_NUMBERS = 13
_LARGEST = (1 << 63) - 1
_NUMBER = re.compile(rb"-?[0-9]{1,19}")
_URL = re.compile(
    r"chirp://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?(/.*)?", re.DOTALL
)

ALREADY_EXISTS, DOESNT_EXIST, NOT_AUTHORIZED = -4, -3, -2
_REASONS = {
    -1: "not authenticated",
    NOT_AUTHORIZED: "permission denied",
    DOESNT_EXIST: "no such file or directory",
    ALREADY_EXISTS: "it already exists",
    -5: "too big",
    -6: "no space left there",
    -7: "the server is out of memory",
    -8: "the server does not know this request",
    -9: "too many files are open there",
    -10: "it is in use",
    -11: "try again",
    -12: "no such open file",
    -13: "it is a directory",
    -14: "it is not a directory",
    -15: "the directory is not empty",
    -17: "it is offline",
}


class ChirpLostError(BusError):
    """The server cannot be reached, or the connection to it was lost."""


class ChirpNonsenseError(GuestProtocolError):
    """The server violated the protocol."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the Chirp server's answer is invalid: {what}")


class ChirpRefusedError(BoincvmError):
    """The server answered with an error; `number` is the protocol's, and negative."""

    def __init__(self, number: int, what: str) -> None:
        self.number = number
        is_about_reading = number == DOESNT_EXIST
        super().__init__(
            f"{what}: {_REASONS.get(number, f'the server has failed ({number})')}",
            hint="the directory's access list must name you: chirp HOST getacl"
            if number == NOT_AUTHORIZED
            else "",
            exit_code=ExitCode.INPUT_FILE if is_about_reading else ExitCode.OUTPUT_FILE,
        )


class ChirpUrl(NamedTuple):
    """A file on a Chirp server."""

    host: str
    port: int
    path: str
    """Begins with a slash and has no `..`."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"chirp://{host}:{self.port}{self.path}"


def parse_url(text: str) -> ChirpUrl:
    """Parse `chirp://HOST[:PORT]/PATH`, where nothing in PATH is encoded. Raises UsageError."""
    match = _URL.fullmatch(text)
    port = int(match[2] or PORT) if match else 0
    if match is None or not 0 < port < 1 << 16:
        raise UsageError(f"{text[:200]!r} is not of the form chirp://HOST:PORT/PATH")
    steps = [step for step in (match[3] or "/").split("/") if step not in ("", ".")]
    if ".." in steps or len(steps) > _MOST_STEPS or "\0" in text:
        raise UsageError(
            f"the path in {text[:200]!r} leads out of the server's directory, or is empty"
        )
    return ChirpUrl(match[1].strip("[]"), port, "/" + "/".join(steps))


class ChirpStat(NamedTuple):
    """The status of a file on a server."""

    mode: int
    """Permissions and the kind of file, as in stat(2)."""
    size: int
    modified: int
    """Seconds since 1970."""

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


def request(*words: str | int) -> bytes:
    """Encode a request. Raises UsageError if it is longer than every server must accept."""
    line = b" ".join(str(word).encode() for word in words)
    if len(line) > _LONGEST_REQUEST:
        raise UsageError("a path is too long for Chirp", hint="use shorter names")
    return line + b"\n"


def encoded(path: str) -> str:
    return quote_from_bytes(path.encode("utf-8", "surrogateescape"), safe="/")


def number(line: bytes, most: int = _LARGEST) -> int:
    """Return the first word of an answer as a number, negative or at most `most`.

    Raises ChirpNonsenseError.
    """
    word = line.split(maxsplit=1)[0] if line.strip() else b""
    value = int(word) if _NUMBER.fullmatch(word) else most + 1
    if value > most:
        raise ChirpNonsenseError(f"{line[:40]!r} where a number was to come")
    return value


def read_stat(line: bytes) -> ChirpStat:
    """Decode a file's status. Raises ChirpNonsenseError."""
    words = line.split()
    if len(words) != _STAT_NUMBERS or not all(map(_NUMBER.fullmatch, words)):
        raise ChirpNonsenseError(f"{line[:40]!r} where a file was to be described")
    found = ChirpStat(int(words[2]), int(words[7]), int(words[11]))
    if not 0 <= found.size <= _LARGEST or not 0 <= found.mode < 1 << 32:
        raise ChirpNonsenseError("a file of an impossible size or kind")
    return found


def read_name(line: bytes) -> str:
    """Decode the name of a directory's entry, which must be a single name.

    Raises ChirpNonsenseError.
    """
    if not 0 < len(line) <= _LONGEST_NAME or b"/" in line or b"\0" in line:
        raise ChirpNonsenseError(f"{line[:40]!r} is not a file name")
    return line.decode("utf-8", "surrogateescape")
