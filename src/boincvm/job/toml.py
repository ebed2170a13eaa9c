"""Reads job.toml, boincvm's own job format (docs/job-toml.md)."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypeVar

from boincvm.job import values
from boincvm.job.files import input_file, output_file, relative_path, repeated_destination
from boincvm.job.model import (
    NO_REQUEST,
    DriverRequest,
    InputFile,
    Job,
    Limits,
    MachineShape,
    MachineTask,
    OutputFile,
)
from boincvm.job.toml_table import Entry, Table, read_table

F = TypeVar("F", InputFile, OutputFile)

MOST_TASKS = 1000
MOST_FILES = 10_000

_TOP = ("name", "machine", "limits", "task", "files")
_MACHINE = ("image", "memory", "cpus", "disk", "network", "checkpoint", "driver")
_LIMITS = ("run", "boot", "silence", "stop")
_TASK = ("command", "stdin", "stdout", "stderr", "directory", "environment")
_FILES = ("input", "output")
_FILE = ("from", "to")
_ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "[machine]": _MACHINE,
    "[limits]": _LIMITS,
    "[[task]]": _TASK,
    "[files]": _FILES,
}


def read_job(path: Path) -> Job[MachineTask]:
    """Read the job that the file at `path` describes.

    Raises JobFileError with `FILE:LINE: found X, expected Y`, whatever the file contains.
    """
    top = read_table(path)
    top.check_keys(_TOP, _ELSEWHERE)
    directory = path.absolute().parent
    files = top.table("files")
    files.check_keys(_FILES, _ELSEWHERE)
    limits = top.table("limits")
    limits.check_keys(_LIMITS, _ELSEWHERE)
    machine = top.table("machine")
    return Job(
        tasks=_tasks(top, limits.get("run", values.duration, None)),
        directory=directory,
        machines={"": _machine(machine)},
        inputs=_inputs(files, directory),
        outputs=_outputs(files),
        limits=_limits(limits),
        name=top.get("name", values.any_text, ""),
        driver_requests=_driver_requests(machine),
    )


def _machine(table: Table) -> MachineShape:
    table.check_keys(_MACHINE, _ELSEWHERE)
    default = MachineShape()
    return MachineShape(
        image=table.get("image", values.image_name, default.image),
        memory=table.get("memory", values.memory, default.memory),
        cpus=table.get("cpus", values.cpus, default.cpus),
        disk=table.get("disk", values.disk, default.disk),
        network=table.get("network", values.flag, default.network),
    )


def _driver_requests(machine: Table) -> Mapping[str, DriverRequest]:
    request = DriverRequest(
        driver=machine.get("driver", values.driver_name, NO_REQUEST.driver),
        checkpoint=machine.get("checkpoint", values.checkpoint_need, NO_REQUEST.checkpoint),
    )
    return {} if request == NO_REQUEST else {"": request}


def _limits(table: Table) -> Limits:
    default = Limits()
    return Limits(
        boot=table.get("boot", values.duration, default.boot),
        silence=table.get("silence", values.duration, default.silence),
        stop=table.get("stop", values.duration, default.stop),
    )


def _tasks(top: Table, time_limit: float | None) -> tuple[MachineTask, ...]:
    entries = top.entries("task", "tables, each beginning with [[task]]", MOST_TASKS)
    if not entries:
        raise top.fault("task", "no task", "at least one [[task]]")
    return tuple(_task(entry.table(), time_limit) for entry in entries)


def _task(table: Table, time_limit: float | None) -> MachineTask:
    table.check_keys(_TASK, _ELSEWHERE)

    def read_from(value: object) -> Path:
        return Path(values.filled_text(value))

    def write_to(value: object) -> Path:
        return Path(relative_path(value))

    def guest_directory(value: object) -> PurePosixPath:
        return PurePosixPath(values.filled_text(value))

    return MachineTask(
        argv=table.require("command", values.command),
        environment=_environment(table.table("environment")),
        directory=table.get("directory", guest_directory, None),
        stdin=table.get("stdin", read_from, None),
        stdout=table.get("stdout", write_to, None),
        stderr=table.get("stderr", write_to, None),
        time_limit=time_limit,
    )


def _environment(table: Table) -> Mapping[str, str]:
    return MappingProxyType(
        {
            table.key(name, values.environment_name): table.require(name, values.any_text)
            for name in table
        }
    )


def _inputs(files: Table, directory: Path) -> tuple[InputFile, ...]:
    entries = files.entries("input", "an array of files", MOST_FILES)
    inputs = tuple(_input(entry, directory) for entry in entries)
    _refuse_repetition(entries, tuple(file.destination for file in inputs))
    return inputs


def _input(entry: Entry, directory: Path) -> InputFile:
    return _file(entry, lambda value: input_file(values.filled_text(value), directory))


def _outputs(files: Table) -> tuple[OutputFile, ...]:
    entries = files.entries("output", "an array of files", MOST_FILES)
    outputs = tuple(_output(entry) for entry in entries)
    _refuse_repetition(entries, tuple(file.destination for file in outputs))
    return outputs


def _output(entry: Entry) -> OutputFile:
    return _file(entry, lambda value: output_file(values.filled_text(value)))


def _file(entry: Entry, named: Callable[[object], F]) -> F:
    """Read a file that is given by its name, or by a table that may say how it is to be called."""
    if not entry.is_table:
        return entry.value(named)
    table = entry.table()
    table.check_keys(_FILE, {})
    file = table.require("from", named)
    return file._replace(destination=table.get("to", relative_path, file.destination))


def _refuse_repetition(entries: list[Entry], destinations: tuple[PurePosixPath, ...]) -> None:
    index = repeated_destination(destinations)
    if index is not None:
        destination = values.describe(str(destinations[index]))
        raise entries[index].fault(
            f"a second file with the destination {destination}", "one file per destination"
        )
