"""Reads a job from the arguments of `boincvm run`."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypeVar

from boincvm.errors import UsageError
from boincvm.job import values
from boincvm.job.files import (
    first_around,
    input_file,
    input_files,
    output_of_option,
    relative_path,
    repeated_destination,
)
from boincvm.job.model import InputFile, Job, Limits, MachineShape, MachineTask, PortForward

COMMAND_ADVICE = "a command goes after --, like: boincvm run -- PROGRAM ARGUMENT; "

_HINT = "boincvm run --help shows examples"
_FROM_JOB_FILE_ONLY = ("input", "output", "env", "stdin", "directory")

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
        machines={"": _machine(arguments, job.machine)},
        limits=_limits(arguments, job.limits),
        forwards=_forwards(arguments),
        remote_desktop=arguments.remote_desktop,
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
        raise _no_command("found nothing to run, expected -- and a command, or a job file")
    for name in _FROM_JOB_FILE_ONLY:
        if getattr(arguments, name) is not None:
            raise _usage(f"found --{name} with a job file, expected it in the job file")
    path = Path(given[0])
    is_job_file = path.suffix == ".toml" or (path.exists() and not path.is_dir())
    if len(given) > 1 or not is_job_file:
        shown = " ".join(map(repr, given[:4]))
        raise _no_command(f"found {shown}, expected one job file, or -- before a command")
    from boincvm.job.toml import read_job

    job = read_job(path)
    if not arguments.replace:
        return job
    outputs = tuple(output._replace(replaces=True) for output in job.outputs)
    return job._replace(outputs=outputs)


def _job_of_command(arguments: argparse.Namespace) -> Job[MachineTask]:
    argv: list[str] = arguments.command
    if not argv or not argv[0]:
        raise _no_command("found nothing after --, expected a command")
    directory = Path.cwd()
    try:
        inputs = _inputs(arguments, directory)
        outputs = tuple(
            output_of_option(text, replaces=arguments.replace) for text in arguments.output or []
        )
        where = None if arguments.directory is None else relative_path(arguments.directory)
        environment = _environment(arguments.env or [])
    except values.UnexpectedValueError as error:
        raise _usage(str(error)) from error
    program = _program_of_the_host(argv[0], directory)
    if program is not None and not _is_among(program.destination, inputs):
        inputs.append(program)
    _refuse_repetition("--input", [file.destination for file in inputs])
    destinations = [file.destination for file in outputs if not file.is_pattern]
    _refuse_repetition("--output", destinations)
    around = first_around(destinations)
    if around is not None:
        directory_name = values.describe(str(destinations[around]))
        raise _usage(
            f"found --output {directory_name} after one that is in it, expected it before that"
        )
    stdin = None if arguments.stdin is None else Path(arguments.stdin)
    task = MachineTask(tuple(argv), environment=environment, directory=where, stdin=stdin)
    return Job(tasks=(task,), directory=directory, inputs=tuple(inputs), outputs=outputs)


def _inputs(arguments: argparse.Namespace, directory: Path) -> list[InputFile]:
    """Return the inputs, without the results of `boincvm map` unless they are named.

    Other items write there meanwhile. Raises UnexpectedValueError.
    """
    results: Path | None = getattr(arguments, "results", None)
    written = None if results is None else os.path.normpath(directory / results)
    return [
        file
        for text in arguments.input or []
        for file in input_files(text, directory)
        if file.source == Path(text) or os.path.normpath(directory / file.source) != written
    ]


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


def _forwards(arguments: argparse.Namespace) -> tuple[PortForward, ...]:
    forwards: list[PortForward] = arguments.publish or []
    if forwards and arguments.network is False:
        raise _usage("found both --publish and --no-network, expected one of them")
    ports = [forward.host for forward in forwards]
    for port in ports:
        if ports.count(port) > 1:
            raise _usage(f"found two --publish with the host's port {port}, expected one")
    return tuple(forwards)


def _machine(arguments: argparse.Namespace, base: MachineShape) -> MachineShape:
    network = True if arguments.publish else arguments.network
    return MachineShape(
        image=_given_or(arguments.image, base.image),
        memory=_given_or(arguments.memory, base.memory),
        cpus=_given_or(arguments.cpus, base.cpus),
        disk=_given_or(arguments.disk, base.disk),
        network=_given_or(network, base.network),
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


def _no_command(message: str) -> UsageError:
    return UsageError(message, hint=f"{COMMAND_ADVICE}{_HINT}")


def _usage(message: str) -> UsageError:
    return UsageError(message, hint=_HINT)
