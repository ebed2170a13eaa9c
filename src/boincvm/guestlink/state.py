"""The state of a link that outlives the host's process, as tables for JSON.

The tables come from a file on the host's disk, so they are checked like any other input.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from boincvm.bus.stomp import MAXIMUM_BODY
from boincvm.errors import HostError
from boincvm.guestlink.display import printable
from boincvm.guestlink.headers import LARGEST
from boincvm.json_value import is_whole

MOST_WATCHES = 64
_LONGEST_LINE = 4096


class LinkState(NamedTuple):
    """The state of the link itself."""

    next_call: int
    """Numbering continues here, so that late messages are not taken for another call's."""

    def table(self) -> dict[str, object]:
        return self._asdict()

    @classmethod
    def read(cls, table: Mapping[str, object]) -> "LinkState":
        """Read the state from `table`. Raises HostError."""
        return cls(_integer(table, "next_call", 1, LARGEST))


class ProgramState(NamedTuple):
    """A program that outlives the host's process that started it."""

    call: int
    name: str
    """For messages."""
    unanswered: int
    """Bytes of output that the guest may still send."""
    untaken: int
    """Bytes of standard input that the program has not taken."""
    input: bytes
    """Standard input that was fed but not sent yet."""
    input_ends: bool
    """Whether nothing follows `input`."""
    watched: tuple[str, ...]
    """Paths, in the order of their numbers."""
    unfinished: bytes | None
    """The beginning of a line from its status channel; None if it has no status channel."""

    def table(self) -> dict[str, object]:
        return {
            **self._asdict(),
            "input": self.input.hex(),
            "watched": list(self.watched),
            "unfinished": None if self.unfinished is None else self.unfinished.hex(),
        }

    @classmethod
    def read(cls, table: Mapping[str, object], most_credit: int) -> "ProgramState":
        """Read the state from `table`. Raises HostError."""
        name, ends = table.get("name"), table.get("input_ends")
        if not isinstance(name, str):
            raise _damaged("name")
        if not isinstance(ends, bool):
            raise _damaged("input_ends")
        unfinished = table.get("unfinished", "missing")
        return cls(
            call=_integer(table, "call", 1, LARGEST),
            name=printable(os.fsencode(name)),
            unanswered=_integer(table, "unanswered", -most_credit, most_credit),
            untaken=_integer(table, "untaken", 0, LARGEST),
            input=_bytes(table, "input", MAXIMUM_BODY),
            input_ends=ends,
            watched=_paths(table, "watched"),
            unfinished=None if unfinished is None else _bytes(table, "unfinished", _LONGEST_LINE),
        )


def _integer(table: Mapping[str, object], name: str, least: int, most: int) -> int:
    value = table.get(name)
    if not is_whole(value, least, most):
        raise _damaged(name)
    return value


def _paths(table: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = table.get(name)
    if isinstance(value, list) and len(value) <= MOST_WATCHES:
        paths = tuple(path for path in value if isinstance(path, str))
        if len(paths) == len(value):
            return paths
    raise _damaged(name)


def _bytes(table: Mapping[str, object], name: str, most: int) -> bytes:
    value = table.get(name)
    try:
        if isinstance(value, str) and len(value) <= 2 * most:
            return bytes.fromhex(value)
    except ValueError:
        pass  # not hexadecimal
    raise _damaged(name)


def _damaged(name: str) -> HostError:
    return HostError(
        f"the saved state of the guest link is damaged: {name!r} is missing or invalid",
        hint="the saved machine cannot be used; let the task start over",
    )
