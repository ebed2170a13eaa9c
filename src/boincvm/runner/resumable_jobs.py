"""Jobs that can be resumed, on disk.

    jobs/NAME/job.json   what the job is: the arguments of `boincvm run`, and where it was given
    jobs/NAME/machine/   its machine, with checkpoints (machine/saved_machine.py)
    jobs/NAME/removed    what job.json becomes when the job is being removed

All are in the data directory; a job may also have a directory of the user's own. The directory is
locked while the job runs, and removed when it has ended. A removal that was killed is finished by
the next command that makes, looks for or removes a job there; so is what was killed while it was
made.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boincvm.errors import HostError, UsageError, host_error
from boincvm.guestlink.display import shown
from boincvm.host.atomic_files import write_atomically
from boincvm.host.files import read_regular
from boincvm.host.locks import close_directory_lock, is_at, open_lockable_directory, try_lock
from boincvm.host.own_files import make_directory
from boincvm.image.store import ImageStore
from boincvm.job.files import has_pattern
from boincvm.job.model import Job, MachineTask
from boincvm.json_value import Json, fault_of
from boincvm.machine.saved_machine import manifests
from boincvm.paths import jobs_directory
from boincvm.portable_names import is_portable_part
from boincvm.similar_names import did_you_mean

SCHEMA = 1
_RECORD = "job.json"
_MACHINE = "machine"
_REMOVED = "removed"
_PART = f".{_RECORD}.part"
"""The record while it is written (host/atomic_files.py)."""
_LOCK = ".lock"
"""What locks a directory on Windows (host/locks_windows.py)."""
_MOST_BYTES = 1 << 22
_DAMAGES = (KeyError, TypeError, ValueError, RecursionError)
"""What reading a record raises that is damaged, or none."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class JobRecord(NamedTuple):
    """What a job is."""

    arguments: Mapping[str, Json]
    """Those of `boincvm run`, by their names in the parser."""
    directory: str
    """Where the command was given; relative paths start there."""
    made: float
    """In seconds since 1970."""


class ResumableJob:
    """The directory of a job that is locked by this process."""

    def __init__(self, directory: Path, name: str, record: JobRecord) -> None:
        self.directory = directory
        self.name = name
        """By which it is resumed: its name, or the path of its directory."""
        self.record = record

    @property
    def machine(self) -> Path:
        """Return the directory of its machine."""
        return self.directory / _MACHINE

    @property
    def has_checkpoint(self) -> bool:
        """Tell whether a checkpoint exists from which it may go on."""
        return bool(manifests(self.machine))

    def remove(self) -> None:
        """Remove all that is kept of it. Idempotent. Raises HostError."""
        try:
            _remove(self.directory)
        except OSError as error:
            raise host_error(f"the job {self.name} cannot be removed", error) from error


def _remove(directory: Path) -> None:
    """Remove the directory of a job, which is none from the first moment on. Raises OSError."""
    with suppress(FileNotFoundError):
        (directory / _RECORD).replace(directory / _REMOVED)
    with suppress(FileNotFoundError):
        shutil.rmtree(directory / _MACHINE)
    ImageStore().release(directory / _MACHINE)
    for name in (_PART, _REMOVED):  # the mark goes last
        (directory / name).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        try:
            directory.rmdir()
        except OSError:
            if not any(directory.iterdir()):
                raise
            # What else is there is the user's.


def _remove_unmade(directory: Path) -> None:
    """Remove what is left in `directory` if a job was killed while it was made there.

    Raises UsageError if another process makes one just now, OSError.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        if {path.name for path in directory.iterdir()} - {_LOCK} != {_PART}:
            return
        with _locked(directory, directory.name):
            if not (directory / _RECORD).exists():
                _remove(directory)


def _finish_removal(directory: Path) -> None:
    """Remove what a killed removal has left in `directory`, if it has.

    Raises UsageError if another process does that just now, OSError.
    """
    if not (directory / _REMOVED).is_file() or not _is_record(directory / _REMOVED):
        return  # others have files of this name, too
    with suppress(FileNotFoundError), _locked(directory, directory.name):
        if not (directory / _RECORD).exists():
            _remove(directory)


def _finish_removals() -> None:
    """Remove what killed removals have left among the jobs in the data directory."""
    for path in jobs_directory().glob(f"*/{_REMOVED}"):
        with suppress(UsageError, OSError):  # nobody has asked for it
            _finish_removal(path.parent)
    for path in jobs_directory().glob(f"*/{_PART}"):
        with suppress(UsageError, OSError):
            _remove_unmade(path.parent)


def names() -> list[str]:
    """Return the names of all jobs that are kept. Raises HostError."""
    directory = jobs_directory()
    if not directory.is_dir():
        return []
    return sorted(path.parent.name for path in directory.glob(f"*/{_RECORD}"))


def check_directory(name: str, job: Job[MachineTask]) -> None:
    """Check that the directory of a new job would be the job's alone. Raises UsageError."""
    directory = _directory_of(name).resolve()
    here = Path.cwd()
    if here.is_relative_to(directory):
        raise _shared(name, "it is, or contains, the current directory")
    outputs = [*job.outputs, *(output for task in job.tasks for output in task.outputs)]
    for output in outputs:
        path = output.destination
        if output.is_pattern and output.keeps_path:
            path /= PurePosixPath(
                *takewhile(lambda part: not has_pattern(part), output.source.parts)
            )
        there = (here / job.directory / path).resolve()
        if there.is_relative_to(directory) or (
            directory.is_relative_to(there) and not output.is_pattern
        ):
            raise _shared(name, f"output {shown(output.source)} would be there")


def _shared(name: str, why: str) -> UsageError:
    return UsageError(
        f"found --name {name[:80]!r}, expected a directory that the job alone uses: {why}",
        hint="it is removed when the job has ended; name another one, or leave the slash out",
    )


@contextmanager
def new_job(name: str | None, suggestion: str, record: JobRecord) -> Iterator[ResumableJob]:
    """Yield the directory of a new job, and lock it in the block.

    `name`: a name, or a path, which has a slash in it; without one the name is derived from
    `suggestion`. Raises UsageError, HostError.
    """
    made = JobRecord(record.arguments, record.directory, time.time())
    text = json.dumps({"schema": SCHEMA, **made._asdict()})
    with ExitStack() as stack:
        try:
            directory, name = _make(name, suggestion)
            stack.enter_context(_locked(directory, name))
            try:
                write_atomically(directory / _RECORD, text)
            except OSError:
                shutil.rmtree(directory, ignore_errors=True)  # without it, it is no job
                raise
        except OSError as error:
            raise host_error("the job cannot be kept on disk", error) from error
        yield ResumableJob(directory, name, made)


@contextmanager
def existing_job(name: str) -> Iterator[ResumableJob]:
    """Yield the job of this name or directory, and lock it in the block.

    The empty name is the only job that there is. Raises UsageError, HostError.
    """
    with ExitStack() as stack:
        try:
            name, directory = _find(name)
            stack.enter_context(_locked(directory, name))
            record = _read_record(directory, name)
        except OSError as error:
            raise host_error(f"the job {name}", error) from error
        yield ResumableJob(directory, name, record)


def discard_job(name: str) -> str:
    """Remove a job; return its name.

    Its record must be readable if its directory is not in the data directory. Raises UsageError,
    HostError.
    """
    try:
        name, directory = _find(name)
        with _locked(directory, name):
            if not _is_ours(directory):  # others have files of this name, too
                _read_record(directory, name)
            ResumableJob(directory, name, JobRecord({}, "", 0.0)).remove()
            return name
    except OSError as error:
        raise host_error(f"the job {name}", error) from error


def _find(name: str) -> tuple[str, Path]:
    """Return a job's name and directory; "" is the only one's. Raises UsageError, OSError."""
    _finish_removals()
    if not name:
        name = _only_name()
    directory = _directory_of(name)
    _finish_removal(directory)
    _remove_unmade(directory)
    if not (directory / _RECORD).is_file():
        raise UsageError(f"there is no job {name!r} to resume", hint=_known(name))
    return name, directory


def _make(name: str | None, suggestion: str) -> tuple[Path, str]:
    """Make the directory of a new job; return it and the job's name. Raises UsageError, OSError."""
    if name is not None:
        directory = _directory_of(name)
        if _is_ours(directory) and not is_portable_part(name):
            raise UsageError(
                f"found {name[:80]!r}, expected the name of a job",
                hint="a name has no dot at its end, and is not a device of Windows' such as NUL",
            )
        make_directory(directory.parent)
        _finish_removal(directory)
        with suppress(UsageError):  # somebody makes it just now
            _remove_unmade(directory)
        with suppress(OSError):  # it is not there, or not empty
            directory.rmdir()
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            raise UsageError(
                f"there is a job {name!r} already",
                hint=f"continue it with boincvm run --resume {name}, remove it with"
                f" boincvm run --discard {name}, or choose another name",
            ) from None
        return directory, name
    make_directory(jobs_directory())
    _finish_removals()
    base = re.sub(r"[^A-Za-z0-9._-]", "-", suggestion).lstrip("._-")[:48] or "job"
    if not is_portable_part(base):
        base = f"job-{base}".rstrip(".")
    number = 1
    while True:
        name = base if number == 1 else f"{base}-{number}"
        directory = jobs_directory() / name
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return directory, name


def _directory_of(name: str) -> Path:
    """Return the directory of the job `name`. Raises UsageError."""
    if "/" in name:
        return Path(name).absolute()
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"found {name[:80]!r}, expected the name of a job, or a directory with a slash in it",
            hint="a name has letters, digits, dots, hyphens and underscores",
        )
    return jobs_directory() / name


def _is_ours(directory: Path) -> bool:
    """Tell whether a job's directory is in the data directory, not at a place of the user's."""
    return directory.parent == jobs_directory()


@contextmanager
def _locked(directory: Path, name: str) -> Iterator[None]:
    """Hold the lock of a job's directory. Raises UsageError, OSError."""
    descriptor = open_lockable_directory(directory)
    try:
        if not try_lock(descriptor):
            raise UsageError(
                f"the job {name} is running", hint="wait until it ends, or interrupt it with Ctrl-C"
            )
        if not is_at(descriptor, directory):
            raise UsageError(
                f"the job {name} has just ended, and another one has its name",
                hint="give the command again if the new one is meant",
            )
        yield
    finally:
        close_directory_lock(descriptor, directory)


def _read_record(directory: Path, name: str) -> JobRecord:
    """Read what a job is. Raises HostError, OSError."""
    try:
        return _record(directory / _RECORD)
    except _DAMAGES as error:
        raise HostError(
            f"the saved job {name} cannot be read: {fault_of(error)}",
            hint=f"remove it with boincvm run --discard {name}"
            if _is_ours(directory)
            else "if it is one, remove its directory",
        ) from error


def _only_name() -> str:
    """Return the name of the only job. Raises UsageError if there is not exactly one."""
    known = names()
    if len(known) == 1:
        return known[0]
    if not known:
        raise UsageError(
            "there is no job to resume", hint="start one with boincvm run --resumable -- PROGRAM"
        )
    raise UsageError(
        f"{len(known)} jobs can be resumed: {', '.join(known)}",
        hint="name one: boincvm run --resume NAME",
    )


def _known(name: str) -> str:
    known = names()
    if not known:
        return "start one with boincvm run --resumable -- PROGRAM"
    return f"{did_you_mean(name, known)}these can be resumed: {', '.join(known)}"


def _record(path: Path) -> JobRecord:
    """Read a record. Raises OSError, and one of _DAMAGES if it is none."""
    table = json.loads(read_regular(path, _MOST_BYTES))
    if table["schema"] != SCHEMA:
        raise ValueError(f"its schema is {table['schema']!r}, and this boincvm knows {SCHEMA}")
    arguments, where = table["arguments"], table["directory"]
    if not isinstance(arguments, dict) or not isinstance(where, str):
        raise TypeError("the arguments or the directory")
    return JobRecord(arguments, where, float(table["made"]))


def _is_record(path: Path) -> bool:
    """Tell whether a file is the record of a job. Raises OSError."""
    try:
        _record(path)
    except _DAMAGES:
        return False
    return True
