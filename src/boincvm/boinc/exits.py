"""How a task's process tells the client why it ended: two files, and the exit codes.

(api/boinc_api.cpp, boinc_finish_message and boinc_temporary_exit; lib/error_numbers.h.)
"""

from contextlib import suppress
from enum import IntEnum
from pathlib import Path

from boincvm.byte_text import encoded, one_line
from boincvm.host.atomic_files import write_atomically
from boincvm.redaction import redact

FINISH_FILE = "boinc_finish_called"
TEMPORARY_EXIT_FILE = "boinc_temporary_exit"
LONGEST_DELAY = 86400
"""Seconds; the client treats a longer delay as 300."""
LONGEST_TEXT = 254
"""Bytes of a message or a reason that the client reads."""


class BoincExit(IntEnum):
    """Exit statuses with a meaning to BOINC."""

    SUCCESS = 0
    STATE_FILE_WRITE = 192
    SIGNAL = 193
    ABORTED_BY_CLIENT = 194
    CHILD_FAILED = 195
    DISK_LIMIT_EXCEEDED = 196
    TIME_LIMIT_EXCEEDED = 197
    MEMORY_LIMIT_EXCEEDED = 198
    CLIENT_EXITING = 199
    UNSTARTED_LATE = 200
    MISSING_COPROCESSOR = 201
    ABORTED_BY_PROJECT = 202
    ABORTED_VIA_GUI = 203
    UNKNOWN = 204
    OUT_OF_MEMORY = 205
    INIT_FAILURE = 206
    NO_SUB_TASKS = 207
    SUB_TASK_FAILURE = 208
    OVERDUE_EXCEEDED = 209


def write_finish_file(
    slot: Path, exit_status: int, message: str = "", *, notice: bool = False
) -> None:
    """Declare the task finished; the process must exit with `exit_status` within 300 s.

    With `notice` the volunteer is shown the message. Raises OSError.
    """
    content = b"%d\n" % exit_status
    if message:
        content += b"%b\n%b\n" % (message_line(message), b"notice" if notice else b"")
    write_atomically(slot / FINISH_FILE, content)


def write_temporary_exit_file(
    slot: Path, delay: float, reason: str, *, notice: bool = False
) -> None:
    """Ask for a restart after `delay` seconds; the process must now exit with status 0.

    Raises ValueError if there is no reason, which the client would count as a crash. Raises
    OSError.
    """
    line = message_line(reason)
    if not line:
        raise ValueError("a temporary exit needs a reason")
    seconds = round(min(max(delay, 0), LONGEST_DELAY))
    content = b"%d\n%b\n%b" % (seconds, line, b"notice\n" if notice else b"")
    write_atomically(slot / TEMPORARY_EXIT_FILE, content)


def remove_end_files(slot: Path) -> None:
    """Remove the finish file and the temporary exit file, whichever program wrote them.

    A BOINC program that runs as one part of a task writes both for its own part only.
    """
    for name in (FINISH_FILE, TEMPORARY_EXIT_FILE):
        with suppress(OSError):  # missing or not a file: the client cannot read it either
            (slot / name).unlink()


def message_line(text: str) -> bytes:
    """Return `text` as one line of at most 254 bytes that the client can read."""
    line = " ".join(one_line(redact(text)).split())[:LONGEST_TEXT]
    while len(encoded(line)) > LONGEST_TEXT:  # never cut a character in two
        line = line[:-1]
    return encoded(line)
