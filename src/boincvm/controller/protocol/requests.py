"""Requests to one guest, and its answers, as they travel on the bus.

To a guest, and from it:

    ASK {"ask-id", "instance", "verb", "arguments", "heard"} and data
            `heard`: ids whose answers have come, and need not be kept any more
    ASK_TAKEN {"ask-id"}                it was heard, and takes its time
    ANSWER {"ask-id", "result"} and data
    ANSWER {"ask-id", "error": {"message", "hint", "code"}}
"""

from collections.abc import Mapping
from typing import NamedTuple

from boincvm import errors
from boincvm.controller.protocol.messages import Word
from boincvm.errors import BoincvmError, GuestProtocolError
from boincvm.exit_codes import ExitCode

MOST_DATA = 256 << 10
"""Bytes beside the table, of a question and of an answer."""
MOST_OPEN = 256
"""Questions to one guest at once."""
MOST_HEARD = 64
"""Ids in one word."""
LONGEST_ID = 64
_LONGEST_TEXT = 1000
_KINDS = {
    kind.exit_code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BoincvmError) and "exit_code" in vars(kind)
}


class Reply(NamedTuple):
    """What a verb gives: `table` must be fit for JSON; `data` is at most MOST_DATA bytes."""

    table: Mapping[str, object]
    data: bytes = b""


def read_answer(word: Word) -> Reply | BoincvmError:
    """Of an ANSWER. Raises GuestProtocolError."""
    error, result = word.table.get("error"), word.table.get("result")
    if isinstance(error, dict) and result is None:
        return _read_error(error)
    if not isinstance(result, dict) or error is not None or len(word.data) > MOST_DATA:
        raise GuestProtocolError("an answer on the bus makes no sense")
    return Reply(result, word.data)


def _read_error(table: Mapping[str, object]) -> BoincvmError:
    code = table.get("code")
    if not isinstance(code, int) or isinstance(code, bool) or code not in set(ExitCode):
        code = ExitCode.GUEST_PROTOCOL
    known = ExitCode(code)
    kind = _KINDS.get(known, BoincvmError)
    message = _line(table.get("message")) or "the guest says that it failed, and not why"
    return kind(message, hint=_line(table.get("hint")), exit_code=known)


def _line(value: object) -> str:
    if not isinstance(value, str):
        return ""
    text = " ".join(value[:_LONGEST_TEXT].split())
    return "".join(filter(str.isprintable, text))
