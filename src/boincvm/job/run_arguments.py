"""Reads a job from the arguments of `boincvm run`."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypeVar

from boincvm.errors import UsageError
from boincvm.job import values
from boincvm.job.files import input_file, output_file, repeated_destination
from boincvm.job.model import InputFile, Job, Limits, MachineShape, MachineTask

COMMAND_ADVICE = "a command goes after --, like: boincvm run -- PROGRAM ARGUMENT; "

_FROM_JOB_FILE_ONLY = ("input", "output", "env", "stdin")

Value = TypeVar("Value")


def job_from_arguments(arguments: argparse.Namespace) -> Job[MachineTask]:
    """Return the whole job. Raises UsageError and, for a job file, JobFileError."""
    if arguments.command is None:
        job = _job_of_file(arguments)
    elif arguments.job_file:
        raise _usage(f"found {arguments.job_file[0]!r} before --, expected only options there")
    else:
        job = _job_of_command(arguments)
    if arguments.no_stdin:
        job = _without_stdin(job, is_given=arguments.stdin is not None)
    if arguments.time_limit is not None:
        limit: float = arguments.time_limit
        job = job._replace(tasks=tuple(task._replace(time_limit=limit) for task in job.tasks))
    return job._replace(
        machines={"": _machine(arguments, job.machine)}, limits=_limits(arguments, job.limits)
    )


def _without_stdin(job: Job[MachineTask], *, is_given: bool) -> Job[MachineTask]:
    if is_given:
        raise _usage("found both --stdin and --no-stdin, expected one of them")
    nothing = Path(os.devnull)
    tasks = (task if task.stdin else task._replace(stdin=nothing) for task in job.tasks)
    return job._replace(tasks=tuple(tasks))


def _job_of_file(arguments: argparse.Namespace) -> Job[MachineTask]:
    given: list[str] = arguments.job_file
    if not given:
        raise _usage("found nothing to run, expected -- and a command, or a job file")
    for name in _FROM_JOB_FILE_ONLY:
        if getattr(arguments, name) is not None:
            raise _usage(f"found --{name} with a job file, expected it in the job file")
    path = Path(given[0])
    is_job_file = path.suffix == ".toml" or (path.exists() and not path.is_dir())
    if len(given) > 1 or not is_job_file:
        shown = " ".join(map(repr, given[:4]))
        raise _usage(f"found {shown}, expected one job file, or -- before a command")
    from boincvm.job.toml import read_job

    return read_job(path)


def _job_of_command(arguments: argparse.Namespace) -> Job[MachineTask]:
    argv: list[str] = arguments.command
    if not argv or not argv[0]:
        raise _usage("found nothing after --, expected a command")
    directory = Path.cwd()
    try:
        inputs = [input_file(text, directory) for text in arguments.input or []]
        outputs = tuple(output_file(text) for text in arguments.output or [])
        environment = _environment(arguments.env or [])
    except values.UnexpectedValueError as error:
        raise _usage(str(error)) from error
    program = _program_of_the_host(argv[0], directory)
    if program is not None and not _is_among(program.destination, inputs):
        inputs.append(program)
    _refuse_repetition("--input", [file.destination for file in inputs])
    _refuse_repetition("--output", [file.destination for file in outputs])
    stdin = None if arguments.stdin is None else Path(arguments.stdin)
    task = MachineTask(argv=tuple(argv), environment=environment, stdin=stdin)
    return Job(tasks=(task,), directory=directory, inputs=tuple(inputs), outputs=outputs)


def _program_of_the_host(program: str, directory: Path) -> InputFile | None:
    """Return the file of the host that `./prog` names beneath `directory`.

    None: the program is one of the guest's.
    """
    is_beneath = os.path.normpath(program).split("/")[0] not in ("", "..")
    if "/" not in program or not is_beneath or not (directory / program).is_file():
        return None
    return input_file(program, directory)


def _is_among(destination: PurePosixPath, inputs: list[InputFile]) -> bool:
    return any(destination.is_relative_to(file.destination) for file in inputs)


def _environment(pairs: list[str]) -> Mapping[str, str]:
    environment: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise values.UnexpectedValueError(f"--env {pair!r}", "--env NAME=VALUE")
        environment[name] = value
    return MappingProxyType(environment)


def _machine(arguments: argparse.Namespace, base: MachineShape) -> MachineShape:
    return MachineShape(
        image=_given_or(arguments.image, base.image),
        memory=_given_or(arguments.memory, base.memory),
        cpus=_given_or(arguments.cpus, base.cpus),
        disk=_given_or(arguments.disk, base.disk),
        network=_given_or(arguments.network, base.network),
    )


def _limits(arguments: argparse.Namespace, base: Limits) -> Limits:
    return base._replace(
        boot=_given_or(arguments.boot_limit, base.boot),
        silence=_given_or(arguments.silence_limit, base.silence),
    )


def _given_or(given: Value | None, otherwise: Value) -> Value:
    return otherwise if given is None else given


def _refuse_repetition(name: str, destinations: list[PurePosixPath]) -> None:
    index = repeated_destination(destinations)
    if index is not None:
        destination = values.describe(str(destinations[index]))
        raise _usage(f"found two {name} with the destination {destination}, expected one")


def _usage(message: str) -> UsageError:
    return UsageError(message, hint=f"{COMMAND_ADVICE}boincvm run --help shows examples")
