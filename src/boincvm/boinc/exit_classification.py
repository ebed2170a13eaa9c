"""How a BOINC client classifies the end of an app's process: for FakeClient.

(client/app_control.cpp, handle_exited_app and temporary_exit_file_present.)
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from boincvm.boinc.exits import FINISH_FILE, LONGEST_DELAY, TEMPORARY_EXIT_FILE
from boincvm.boinc.messages import Control
from boincvm.host.signals import ENDING_SIGNALS

_DEFAULT_DELAY = 300


class EndKind(Enum):
    """How a client treats the task after its process has ended."""

    FINISHED = auto()
    """Success: exit status 0, with a finish file."""
    FAILED = auto()
    """Another exit status: a computation error."""
    CRASHED = auto()
    """A signal that the app itself caused: a computation error."""
    ABORTED = auto()
    """The client aborted it; how it ended does not matter."""
    QUIT = auto()
    """The client told it to quit; it is started again later."""
    TEMPORARY_EXIT = auto()
    """It asked to be started again after a delay."""
    PREMATURE = auto()
    """Exit status 0 without a finish file: started again; the hundredth time is an error."""
    KILLED = auto()
    """A signal that somebody sent: started again as after a premature exit."""


@dataclass(frozen=True, slots=True)
class End:
    """How an app's process ended."""

    kind: EndKind
    status: int | None = None
    """Exit status; None after a signal."""
    signal: int | None = None
    """Number of the signal that ended it."""
    delay: int | None = None
    """Seconds until the next start."""
    text: str = ""
    """The message or the reason."""
    notice: bool = False
    """The volunteer is shown the text."""


def classify_exit(slot: Path, return_code: int, sent: Collection[Control]) -> End:
    """Classify the end of the app's process.

    `return_code` is minus the signal's number if a signal ended the process; `sent` is what the
    client told the app. Raises OSError.
    """
    number = -return_code if return_code < 0 else None
    status = None if return_code < 0 else return_code
    finish = _lines(slot / FINISH_FILE)
    text, notice = _text_and_notice(finish or [])
    if Control.ABORT in sent:
        return End(EndKind.ABORTED, status, number, text=text, notice=notice)
    if Control.QUIT in sent:
        return End(EndKind.QUIT, status, number)
    if number is not None:
        kind = EndKind.KILLED if number in ENDING_SIGNALS else EndKind.CRASHED
        return End(kind, signal=number)
    if status or finish is not None:
        kind = EndKind.FAILED if status else EndKind.FINISHED
        return End(kind, status, text=text, notice=notice)
    postponed = _lines(slot / TEMPORARY_EXIT_FILE)
    text, notice = _text_and_notice(postponed or [])
    if postponed and text:
        delay = _delay(postponed[0])
        return End(EndKind.TEMPORARY_EXIT, status, delay=delay, text=text, notice=notice)
    return End(EndKind.PREMATURE, status)


def _lines(path: Path) -> list[str] | None:
    try:
        return path.read_text(errors="replace").split("\n")
    except FileNotFoundError:
        return None


def _text_and_notice(lines: list[str]) -> tuple[str, bool]:
    """Return the second line, and True if the third is `notice`."""
    padded = [*lines, "", "", ""]
    return padded[1].strip(), padded[2].strip() == "notice"


def _delay(line: str) -> int:
    try:
        delay = int(line)
    except ValueError:
        return _DEFAULT_DELAY
    return delay if 0 <= delay <= LONGEST_DELAY else _DEFAULT_DELAY
