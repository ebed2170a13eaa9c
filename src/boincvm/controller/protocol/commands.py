"""A request for a command as a CMD_RUN carries it: checked by who says it, and by who hears it."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from boincvm.controller.protocol.messages import LONGEST_TABLE, Word
from boincvm.errors import GuestProtocolError, UsageError
from boincvm.json_value import LARGEST

MOST_STDIN = 1 << 16
LONGEST_ID = 128
WINDOW = 1 << 16
"""Bytes of input that a program has not taken, at most."""
_OUR_SHARE = 4096
"""Bytes of a CMD_RUN's table that are not the request's."""

# Half of a character, which no program can be given; those of PEP 383 stand for bytes.
_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class Request(NamedTuple):
    """A program to run. directory: beneath the guest's own; empty is that one. timeout: seconds
    after which the guest kills it. stdin: its standard input, or the beginning of it if more is
    to follow: `keep_input`."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = {}
    directory: str = ""
    timeout: float | None = None
    stdin: bytes = b""
    keep_input: bool = False


def run_table(request: Request) -> dict[str, object]:
    """Without the standard input, which is the word's data."""
    return {
        "argv": list(request.argv),
        "env": dict(request.environment),
        "directory": request.directory,
        "timeout": request.timeout,
        "keep-input": request.keep_input,
    }


def check_request(request: Request, command_id: str | None) -> None:
    """Raises UsageError."""
    if not request.argv or not request.argv[0]:
        raise UsageError("a command without a program", hint="name the program, then its arguments")
    if request.timeout is not None and not request.timeout > 0:
        raise UsageError("a timeout of no seconds, in which nothing can run")
    if len(request.stdin) > MOST_STDIN:
        raise UsageError(
            f"a standard input of {len(request.stdin)} bytes, where {MOST_STDIN} are the most",
            hint="send it as a file first, or let it follow: keep_input",
        )
    if len(json.dumps(run_table(request))) > LONGEST_TABLE - _OUR_SHARE:
        raise UsageError(
            f"arguments and environment are larger than {(LONGEST_TABLE - _OUR_SHARE) >> 10} KiB",
            hint="send them as a file first",
        )
    if command_id is not None and not (
        0 < len(command_id) <= LONGEST_ID and command_id.isprintable()
    ):
        raise UsageError(
            "a command's id that is none", hint=f"1 to {LONGEST_ID} printable characters"
        )


def read_request(word: Word) -> Request:
    """Of a CMD_RUN. Raises GuestProtocolError."""
    table = word.table
    argv, environment = table.get("argv"), table.get("env", {})
    directory, timeout = table.get("directory", ""), table.get("timeout")
    keeps = table.get("keep-input", False)
    is_good = (
        isinstance(argv, list)
        and bool(argv)
        and isinstance(environment, dict)
        and all(_is_argument(one) for one in (*argv, *environment, *environment.values()))
        and _is_argument(directory)
        and (timeout is None or (isinstance(timeout, int | float) and 0 < timeout <= LARGEST))
        and isinstance(keeps, bool)
        and len(word.data) <= MOST_STDIN
    )
    if not is_good:
        raise GuestProtocolError("a command on the bus makes no sense")
    return Request(
        tuple(argv),  # type: ignore[arg-type]
        environment,  # type: ignore[arg-type]
        str(directory),
        timeout,  # type: ignore[arg-type]
        word.data,
        bool(keeps),
    )


def _is_argument(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value or len(value) > LONGEST_TABLE:
        return False
    return _SURROGATE.search(value) is None
