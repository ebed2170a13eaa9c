"""Checks a job's single values, for job files and the command line alike.

Each function takes what was found and returns what the model wants, or raises UnexpectedValueError.
The caller adds where it was found.
"""

import re

from boincvm.durations import parse_duration
from boincvm.job.model import GIB, MIB, CheckpointNeed, PortForward
from boincvm.json_value import is_whole
from boincvm.portable_names import is_portable_part
from boincvm.sizes import format_size, parse_size

TIB = 1024 * GIB
MEMORY_BOUNDS = (64 * MIB, TIB)
DISK_BOUNDS = (64 * MIB, 16 * TIB)
MOST_CPUS = 256
LONGEST_DURATION = 3650 * 86400.0
"""Seconds."""

_LONGEST_SIZE_TEXT = 32
_LONGEST_SHOWN = 60
_DRIVER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_PORTS = re.compile(r"([0-9]{1,5}):([0-9]{1,5})", re.ASCII)
_PCI_ADDRESS = re.compile(
    r"(?:([0-9a-f]{4}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])", re.ASCII | re.IGNORECASE
)
_IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class UnexpectedValueError(ValueError):
    """A value is not allowed; `found` and `expected` are parts of a sentence."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"found {found}, expected {expected}")
        self.found = found
        self.expected = expected


def describe(value: object) -> str:
    """Describe `value` in a message: one short line, whatever a file contains."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            short = value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "…"
            return repr(short)
        case int():
            return str(value) if value.bit_length() <= 64 else "a very large number"
        case float():
            return str(value)
        case dict():
            return "a table"
        case list():
            return f"an array of {len(value)}"
        case None:
            return "nothing"
        case bytes():
            return f"{len(value)} bytes"
        case _:
            return "a date or time"


def any_text(value: object) -> str:
    """Read a string, perhaps empty, without NUL, which would end it in every system call."""
    if not isinstance(value, str):
        raise UnexpectedValueError(describe(value), "a text in quotes")
    if "\0" in value:
        raise UnexpectedValueError(describe(value), "a text without a NUL character")
    return value


def filled_text(value: object) -> str:
    """Read a string that is not empty."""
    text = any_text(value)
    if not text:
        raise UnexpectedValueError("an empty text", "one that is not empty")
    return text


def driver_name(value: object) -> str:
    """Read the name of a driver, which need not exist here."""
    text = any_text(value)
    if not _DRIVER_NAME.fullmatch(text):
        raise UnexpectedValueError(
            describe(value), "the name of a driver, like 'qemu' (boincvm doctor lists them)"
        )
    return text


def checkpoint_need(value: object) -> CheckpointNeed:
    """Read whether a machine must be able to be saved."""
    text = any_text(value)
    for need in CheckpointNeed:
        if text == need.value:
            return need
    raise UnexpectedValueError(describe(value), "'required', 'wanted' or 'none'")


def flag(value: object) -> bool:
    """Read a boolean."""
    if not isinstance(value, bool):
        raise UnexpectedValueError(describe(value), "true or false")
    return value


def memory(value: object) -> int:
    """Read an amount of memory; return bytes."""
    return size_between(value, MEMORY_BOUNDS)


def disk(value: object) -> int:
    """Read an amount of disk space; return bytes."""
    return size_between(value, DISK_BOUNDS)


def size_between(value: object, bounds: tuple[int, int]) -> int:
    """Read a size within `bounds`, the least and the most bytes; return bytes."""
    least, most = bounds
    expected = f"a size from {format_size(least)} to {format_size(most)}, like '512M' or '2G'"
    # Longer or other text cannot be a size, and must not become an infinite number.
    if not isinstance(value, str) or len(value) > _LONGEST_SIZE_TEXT or not value.isascii():
        raise UnexpectedValueError(describe(value), expected)
    try:
        size = parse_size(value)
    except ValueError as error:
        raise UnexpectedValueError(describe(value), expected) from error
    if not least <= size <= most:
        raise UnexpectedValueError(describe(value), expected)
    return size


def cpus(value: object) -> int:
    """Read a number of virtual processors."""
    if not is_whole(value, 1, MOST_CPUS):
        raise UnexpectedValueError(describe(value), f"a whole number from 1 to {MOST_CPUS}")
    return value


def port_forward(value: object) -> PortForward:
    """Read a port of the host and one of the guest, like `8080:80`."""
    match = _PORTS.fullmatch(value) if isinstance(value, str) else None
    ports = [int(number) for number in match.groups()] if match else []
    if not ports or not all(1 <= port <= 65535 for port in ports):
        raise UnexpectedValueError(
            describe(value), "a port of the host and one of the guest, like '8080:80'"
        )
    return PortForward(*ports)


def pci_address(value: object) -> str:
    """Read the address of a PCI device as lspci prints it; return it with its domain."""
    match = _PCI_ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise UnexpectedValueError(
            describe(value), "the address of a PCI device, like '0000:01:00.0' (lspci -D)"
        )
    domain, rest = match.groups()
    return f"{domain or '0000'}:{rest}".lower()


def duration(value: object) -> float:
    """Read a number of seconds or a string like `2h`; return seconds."""
    expected = "a duration above 0 and up to 10 years: seconds, or a text like '90s' or '2h'"
    match value:
        case bool():
            raise UnexpectedValueError(describe(value), expected)
        case int() | float() if 0 < value <= LONGEST_DURATION:
            return float(value)
        case str():
            try:
                seconds = parse_duration(value)
            except ValueError as error:
                raise UnexpectedValueError(describe(value), expected) from error
            if 0 < seconds <= LONGEST_DURATION:
                return seconds
    raise UnexpectedValueError(describe(value), expected)


def image_name(value: object) -> str:
    """Read the name of an image; it becomes a file name, so few characters are allowed."""
    name = filled_text(value)
    if _IMAGE_NAME.fullmatch(name) is None:
        raise UnexpectedValueError(
            describe(value), "an image's name: up to 64 of a-z 0-9 . _ -, a letter or digit first"
        )
    if not is_portable_part(name):
        expected = "an image's name without a dot at its end, and no device of Windows' such as nul"
        raise UnexpectedValueError(describe(value), expected)
    return name


def command(value: object) -> tuple[str, ...]:
    """Read a command's arguments, from an array or from one string split as a shell would."""
    expected = "a command: an array of texts, or one text with its quotes in pairs"
    match value:
        case str():
            text = any_text(value)
            try:
                import shlex  # rarely needed

                arguments = shlex.split(text)
            except ValueError as error:
                raise UnexpectedValueError(describe(value), expected) from error
        case list():
            arguments = [any_text(argument) for argument in value]
        case _:
            raise UnexpectedValueError(describe(value), expected)
    if not arguments or not arguments[0]:
        raise UnexpectedValueError("no program to run", expected)
    return tuple(arguments)


def environment_name(value: object) -> str:
    """Read the name of an environment variable."""
    name = filled_text(value)
    if "=" in name:
        raise UnexpectedValueError(describe(value), "a variable's name without '='")
    return name
