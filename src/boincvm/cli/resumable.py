"""The part of `boincvm run` for jobs that are kept on disk and resumed."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from boincvm.cli.output import print_indented_json
from boincvm.errors import HostError, InputFileError, UsageError
from boincvm.job.model import Job, MachineTask
from boincvm.job.run_arguments import job_from_arguments
from boincvm.json_value import Json
from boincvm.runner.resumable_jobs import (
    JobRecord,
    check_directory,
    discard_job,
    existing_job,
    new_job,
)
from boincvm.runner.resumable_run import ResumableOptions, run_resumable
from boincvm.standard_error import is_terminal

_TEXTS = ("image", "driver", "stdin", "directory")
_NUMBERS = ("memory", "cpus", "disk", "time_limit", "boot_limit", "silence_limit")
_LISTS = ("command", "job_file", "input", "output", "env")
_FLAGS = ("network", "no_stdin", "replace")
_OF_THE_JOB = (*_TEXTS, *_NUMBERS, *_LISTS, *_FLAGS)
"""Arguments that make up the job, by their names in the parser."""


def run(arguments: argparse.Namespace) -> int:
    """Begin, resume or discard a job; return the program's exit code. Raises BoincvmError."""
    if arguments.discard is not None:
        _check_alone(arguments, "--discard")
        name = discard_job(arguments.discard)
        if arguments.json:
            print_indented_json({"removed": name})
        else:
            print(f"job {name} has been removed")
        return 0
    if arguments.resume is not None:
        _check_alone(arguments, "--resume")
        with existing_job(arguments.resume) as stored:
            given = _arguments_of(stored.record.arguments, stored.name)
            try:
                os.chdir(stored.record.directory)
            except OSError as error:
                raise InputFileError(
                    f"the directory in which the job was started, {stored.record.directory}:"
                    f" {error.strerror}",
                    hint="its files are looked for from there; create it again",
                ) from error
            options = _options(arguments, given.driver)
            return run_resumable(stored, job_from_arguments(given), options)
    # What it has read from ours could not be read again.
    arguments.no_stdin = arguments.stdin is None
    if arguments.remote_desktop:
        raise UsageError(
            "found --remote-desktop with --resumable, expected one of them",
            hint="a machine that is saved has no remote desktop",
        )
    if arguments.publish:
        raise UsageError(
            "found --publish with --resumable, expected one of them",
            hint="the port may be in use when the job is resumed; leave one of the two out",
        )
    job = job_from_arguments(arguments)
    if arguments.name is not None:
        check_directory(arguments.name, job)
    table = {name: getattr(arguments, name) for name in _OF_THE_JOB}
    record = JobRecord(table, str(Path.cwd()), 0.0)
    with new_job(arguments.name, _suggestion(job), record) as stored:
        return run_resumable(stored, job, _options(arguments, arguments.driver))


def _options(arguments: argparse.Namespace, driver: str | None) -> ResumableOptions:
    return ResumableOptions(
        driver=driver,
        period=arguments.checkpoint_period,
        json_output=arguments.json,
        show_progress=not arguments.quiet and not arguments.json and is_terminal(),
        is_verbose=arguments.verbose,
    )


def _suggestion(job: Job[MachineTask]) -> str:
    return job.name or PurePosixPath(job.tasks[0].argv[0]).name


def _check_alone(arguments: argparse.Namespace, option: str) -> None:
    """Check that nothing is given that would make up another job. Raises UsageError."""
    for name in _OF_THE_JOB:
        if getattr(arguments, name) not in (None, False, []):
            raise UsageError(
                f"found {name.replace('_', '-')} with {option}, expected the job's name alone",
                hint="a resumed job keeps its options",
            )
    if arguments.resumable or arguments.name is not None:
        raise UsageError(
            f"found --resumable or --name with {option}, expected one of them",
            hint="a job that is resumed stays resumable",
        )


def _arguments_of(table: Mapping[str, Json], name: str) -> argparse.Namespace:
    """Return the arguments of a job as they were kept. Raises HostError."""
    is_whole = table.keys() == set(_OF_THE_JOB)
    if not is_whole or not all(_is_right(key, value) for key, value in table.items()):
        raise HostError(
            f"the saved job {name} is damaged",
            hint=f"remove it with boincvm run --discard {name}",
        )
    return argparse.Namespace(**table, publish=None, remote_desktop=False)


def _is_right(key: str, value: Json) -> bool:
    """Tell whether an argument has the type that the parser gives it."""
    if value is None:
        return True
    if key in _LISTS:
        return isinstance(value, list) and all(isinstance(word, str) for word in value)
    kind = str if key in _TEXTS else bool if key in _FLAGS else (int, float)
    return isinstance(value, kind)
