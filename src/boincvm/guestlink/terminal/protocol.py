"""The command that runs in the guest, and the encoding of keys and window sizes for it.

remote.py describes the encoding.
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_LARGEST = (1 << 16) - 1
_FORWARDED = ("TERM", "COLORTERM", "LANG", "LC_ALL")
_LONGEST_VALUE = 100


class Size(NamedTuple):
    """The size of a window, in characters."""

    rows: int = 24
    columns: int = 80


def shell_argv(size: Size, program: Sequence[str] = ()) -> list[str]:
    """Return the command, to be run with `keep_input`; `program` defaults to bash or sh."""
    script = Path(__file__).with_name("remote.py").read_text(encoding="utf-8")
    return ["python3", "-IS", "-c", script, *map(str, size), *program]


def shell_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the shell needs to know the user's kind of terminal."""
    variables = {"TERM": "xterm"}
    for name in _FORWARDED:
        value = environment.get(name, "")
        if value.isprintable() and 0 < len(value) <= _LONGEST_VALUE:
            variables[name] = value
    return variables


def keys(data: bytes) -> bytes:
    """Encode typed keys."""
    return data.replace(b"\0", b"\0\0")


def window_size(size: Size) -> bytes:
    """Encode a window size, to be sent among the keys; it is also a sign of life."""
    return b"\0w" + struct.pack(">HH", *(min(number, _LARGEST) for number in size))
