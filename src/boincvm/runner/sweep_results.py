"""The results of a sweep on disk.

    DIRECTORY/joblog          one line for each item that has ended, as GNU parallel's --joblog
    DIRECTORY/NUMBER/stdout   what the program of an item wrote, like `stderr`
    DIRECTORY/NUMBER/…        the item's outputs

The directory is locked while a sweep writes to it.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

from boincvm.errors import (
    BoincvmError,
    GuestError,
    HypervisorError,
    InputFileError,
    LimitError,
    OutputFileError,
    UsageError,
    host_error,
)
from boincvm.host.locks import open_lockable_directory, try_lock
from boincvm.job.sweep import Item
from boincvm.runner.run_directory import run_directory

JOB_LOG = "joblog"
STDOUT = "stdout"
STDERR = "stderr"
_HEADER = b"Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"
_COLUMNS = 9
_LOCAL = ":"
"""GNU parallel's name for this host."""
_MOST_BYTES = 1 << 30


class Resume(Enum):
    """Which items of an earlier sweep, in the same directory, are run again."""

    NONE = "none"
    """There must be no earlier sweep."""
    UNFINISHED = "unfinished"
    FAILED = "failed"
    """Those that failed, and those that have not ended."""


class ItemEnd(NamedTuple):
    """How the run of one item ended."""

    item: Item
    command: tuple[str, ...]
    directory: Path
    """It has the item's results."""
    exit_code: int = 0
    """The program's own, 128+N after signal N, or one of boincvm's if it failed otherwise."""
    signal: int = 0
    """The signal that killed the program, or 0."""
    began: float = 0.0
    """In seconds since 1970."""
    seconds: float = 0.0
    sent: int = 0
    """Bytes of files that went into the machine."""
    received: int = 0
    """Bytes of files that came back."""
    is_misbehaved: bool = False
    """Whether the program was killed or used up what the machine has, so that the machine may not
    be as it was."""
    host: str = ""
    """The machine of a fleet in which it ran; empty for this host."""
    message: str = ""
    """Why it failed, or what the user should know although it did not."""
    hint: str = ""


def failed(end: ItemEnd, error: BoincvmError) -> ItemEnd:
    """Return `end` with an error that is no exit code of the program's."""
    return end._replace(
        exit_code=int(error.exit_code),
        message=error.message,
        hint=error.hint,
        is_misbehaved=isinstance(error, LimitError | GuestError | HypervisorError),
    )


class SweepResults:
    """The directory of one sweep's results."""

    def __init__(
        self,
        directory: Path,
        text_of: Callable[[Item], str],
        log: BinaryIO | None = None,
        ended_before: Mapping[int, int] = MappingProxyType({}),
        *,
        lacks_earlier: bool = False,
    ) -> None:
        """Take the directory; `log`: where ends are noted, None if nothing is kept."""
        self.directory = directory
        self.lacks_earlier = lacks_earlier
        """Whether it should have had the results of an earlier sweep, and had none."""
        self.ended_before = ended_before
        """The exit codes of the items that need not run again, by their numbers."""
        self._text_of = text_of
        self._log = log

    @property
    def are_kept(self) -> bool:
        """Tell whether they stay after the sweep."""
        return self._log is not None

    def make_directory(self, item: Item) -> Path:
        """Return an empty directory for the results of `item`. Raises HostError, OutputFileError.

        What an interrupted run of the item has left there is removed.
        """
        directory = self.directory / str(item.number)
        try:
            if directory.is_dir() and not directory.is_symlink():
                shutil.rmtree(directory)
            directory.mkdir()
        except OSError as error:
            what = f"the directory of results {directory}"
            raise host_error(what, error, OutputFileError) from error
        return directory

    def record(self, end: ItemEnd) -> None:
        """Note in the job log how an item ended. Raises HostError."""
        if self._log is None:
            return
        row = (
            end.item.number,
            end.host or _LOCAL,
            f"{end.began:.3f}",
            f"{end.seconds:.3f}",
            end.sent,
            end.received,
            end.exit_code,
            end.signal,
            _one_line(self._text_of(end.item)),
        )
        try:
            self._log.write("\t".join(map(str, row)).encode() + b"\n")
            self._log.flush()
        except OSError as error:
            raise host_error("the job log", error) from error

    def check(self, begun: Mapping[int, str], items: Sequence[Item]) -> None:
        """Check that the items of a job log are those of this sweep. Raises UsageError."""
        for number, text in begun.items():
            is_known = 1 <= number <= len(items)
            if not is_known or _one_line(self._text_of(items[number - 1])) != text:
                raise UsageError(
                    f"{self.directory} has the results of another sweep: its item {number} was"
                    f" {text[:200]}",
                    hint="give the same command and inputs, or name another directory with"
                    " --results",
                )

    def forget(self, end: ItemEnd) -> None:
        """Remove the results of an item that have been printed, if nothing is kept."""
        if not self.are_kept:
            shutil.rmtree(end.directory, ignore_errors=True)


@contextmanager
def temporary_results(text_of: Callable[[Item], str]) -> Iterator[SweepResults]:
    """Yield results that are gone after the block. Raises HostDiskFullError, HostError."""
    with run_directory() as directory:
        yield SweepResults(directory, text_of)


@contextmanager
def kept_results(
    directory: Path, resume: Resume, items: Sequence[Item], text_of: Callable[[Item], str]
) -> Iterator[SweepResults]:
    """Yield the results in `directory`, which know what need not run again.

    `text_of` returns the command of an item as it is written in the log. Raises UsageError,
    InputFileError, OutputFileError, HostError.
    """
    path = directory / JOB_LOG
    with ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = open_lockable_directory(directory)
            stack.callback(os.close, descriptor)
            if not try_lock(descriptor):
                raise UsageError(
                    f"another sweep writes its results to {directory}",
                    hint="wait until it ends, or name another directory with --results",
                )
            if resume is Resume.NONE and path.exists():
                raise UsageError(
                    f"{directory} has the results of an earlier sweep",
                    hint="continue that one with --resume, or name another directory with"
                    " --results",
                )
            begun, done, length = _read_log(path, resume)
            if length == 0:
                _check_unused(directory, items)
            results = SweepResults(directory.resolve(), text_of)
            results.check(begun, items)
            log = stack.enter_context(path.open("ab"))
            log.truncate(length)  # a line that was cut off must not run into the next one
            if length == 0:
                log.write(_HEADER)
                log.flush()
        except OSError as error:
            raise host_error(f"the results in {directory}", error, OutputFileError) from error
        lacks_earlier = resume is not Resume.NONE and not begun
        yield SweepResults(directory.resolve(), text_of, log, done, lacks_earlier=lacks_earlier)


def _check_unused(directory: Path, items: Sequence[Item]) -> None:
    """Check that a new sweep would remove nothing of anybody's. Raises UsageError, OSError."""
    numbers = {str(item.number) for item in items}
    taken = next((path.name for path in directory.iterdir() if path.name in numbers), None)
    if taken is not None:
        raise UsageError(
            f"the results of input {taken} would replace {directory / taken}, which is no result"
            " of an earlier sweep",
            hint="name another directory with --results",
        )


def _read_log(path: Path, resume: Resume) -> tuple[dict[int, str], dict[int, int], int]:
    """Return the commands of all items in the log, exit codes of those not to run, and a length.

    The last run of an item counts. The length is that of the log's whole lines in bytes. Raises
    InputFileError, OSError.
    """
    size = path.stat().st_size if path.exists() else 0
    if size == 0:  # none, or boincvm was killed before it wrote anything
        return {}, {}, 0
    if size > _MOST_BYTES:
        raise _not_a_log(path, "it is too large")
    header, *lines = path.read_bytes().splitlines(keepends=True) or [b""]
    if header != _HEADER:
        raise _not_a_log(path, "its first line is not that of a job log")
    commands: dict[int, str] = {}
    codes: dict[int, int] = {}
    length = len(header)
    for line in lines:
        if not line.endswith(b"\n"):
            break  # boincvm was killed while it wrote it
        length += len(line)
        columns = line.decode(errors="replace").rstrip("\n").split("\t")
        if len(columns) != _COLUMNS or not (columns[0].isdecimal() and columns[6].isdecimal()):
            raise _not_a_log(path, f"found {line[:60]!r}")
        number = int(columns[0][:9])
        commands[number], codes[number] = columns[8], int(columns[6][:9])
    is_any = resume is not Resume.FAILED
    done = {number: code for number, code in codes.items() if is_any or code == 0}
    return commands, done, length


def _not_a_log(path: Path, why: str) -> InputFileError:
    return InputFileError(
        f"{path} is not the log of a sweep: {why}",
        hint="name another directory with --results",
    )


def _one_line(text: str) -> str:
    """Return `text` without any character that would end a line or a column."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
