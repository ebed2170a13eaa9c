"""Finds what a job from somebody else could do outside of a machine, before it is imported."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

from boincvm.boinc.soft_link import resolve
from boincvm.errors import BoincvmError, InputFileError
from boincvm.job.boinc_settings import BoincSettings
from boincvm.job.job_xml import LARGEST_JOB_FILE, read_job_xml
from boincvm.job.model import HostTask, Job, MachineTask, Task
from boincvm.wrapper.tasks.resolve import JOB_FILE

_MOST_SHOWN = 5
_LONGEST_SHOWN = 60


class UntrustedJobError(InputFileError):
    """The job does more than run programs in machines without a network."""


def check_job(directory: Path, source: Path) -> None:
    """Raise UntrustedJobError if the job in `directory` may do anything outside of a machine.

    `source`: the file that the job came with. Raises InputFileError if that cannot be determined.
    """
    found = what_needs_trust(directory, source)
    if found:
        raise UntrustedJobError(
            f"{source} is refused because its job would {summary(found)}",
            hint="if you know who made it and would run that as your own job, use --trust",
        )


def summary(found: list[str]) -> str:
    """Return one line about what `what_needs_trust` has found: of many things, the first ones."""
    more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    return ", ".join(found[:_MOST_SHOWN]) + more


def what_needs_trust(directory: Path, source: Path) -> list[str]:
    """Return all that the job in `directory` would do outside of a machine.

    `source`: the file that the job came with. Raises InputFileError if that cannot be determined.
    """
    try:
        path = resolve(directory, JOB_FILE, None)
        if not path.exists():
            return []  # nothing runs
        with path.open("rb") as file:
            content = file.read(LARGEST_JOB_FILE + 1)
        if len(content) > LARGEST_JOB_FILE:
            raise InputFileError(f"{JOB_FILE} has more than {LARGEST_JOB_FILE} bytes")
        job, settings = read_job_xml(content, JOB_FILE)
    except BoincvmError as error:
        raise InputFileError(
            f"{source} is refused because its {JOB_FILE} cannot be read: {error.message}",
            hint="if you know who made it and still want it, use --trust",
        ) from error
    return list(dict.fromkeys(_reaches(job, settings)))


def _reaches(job: Job[Task], settings: BoincSettings) -> Iterator[str]:
    """Yield what the job does outside of machines, and what it opens to them."""
    beside = (*settings.unzip_tasks, *settings.machine_managers, *settings.daemons)
    for task in (*beside, *job.tasks):
        match task:
            case HostTask():
                command = _shown(f"{task.application} {task.command_line}".strip())
                yield f"run {command} on this computer"
            case MachineTask():
                if job.machines[task.machine].network:
                    yield f"give the machine {_shown(task.machine)} a network"
            case _:
                assert_never(task)


def _shown(text: str) -> str:
    short = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
    return ascii(short) if not short.isprintable() else f"{short!r}"
