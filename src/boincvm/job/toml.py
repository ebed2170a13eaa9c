"""Reads job.toml, boincvm's own job format (docs/job-toml.md)."""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TypeVar

from boincvm.job import values
from boincvm.job.files import (
    first_around,
    input_file,
    output_file,
    overlapping,
    relative_path,
    repeated_destination,
)
from boincvm.job.model import (
    NO_REQUEST,
    CheckpointNeed,
    DriverRequest,
    InputFile,
    Job,
    Limits,
    MachineShape,
    MachineTask,
    OutputFile,
)
from boincvm.job.toml_table import Entry, Table, read_table
from boincvm.portable_names import PORTABLE_NAME, first_clash, is_portable

F = TypeVar("F", InputFile, OutputFile)

MOST_TASKS = 1000
MOST_FILES = 10_000

_TOP = ("name", "machine", "limits", "task", "files")
_MACHINE = ("image", "memory", "cpus", "disk", "network", "checkpoint", "driver", "gpu")
_LIMITS = ("run", "boot", "silence", "stop")
_TASK = ("command", "stdin", "stdout", "stderr", "directory", "environment")
_FILES = ("input", "output")
_FILE = ("from", "to")
_OUTPUT_FILE = ("from", "pattern", "to")
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
    tasks = _tasks(top, limits.get("run", values.duration, None))
    return Job(
        tasks=tasks,
        directory=directory,
        machines={"": _machine(machine)},
        inputs=_inputs(files, directory),
        outputs=_outputs(files, _printed_files(tasks)),
        limits=_limits(limits),
        name=top.get("name", values.any_text, ""),
        gpu=_gpu(machine),
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


def _gpu(machine: Table) -> str | None:
    gpu = machine.get("gpu", values.pci_address, None)
    need = machine.get("checkpoint", values.checkpoint_need, NO_REQUEST.checkpoint)
    if gpu is not None and need is CheckpointNeed.REQUIRED:
        expected = "one of them: a machine with a graphics card of the host cannot be saved"
        raise machine.fault("gpu", "both gpu and checkpoint = 'required'", expected)
    return gpu


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


def _printed_files(tasks: Iterable[MachineTask]) -> list[PurePosixPath]:
    """Return the host's files that tasks print to."""
    return [PurePosixPath(path) for task in tasks for path in (task.stdout, task.stderr) if path]


def _task(table: Table, time_limit: float | None) -> MachineTask:
    table.check_keys(_TASK, _ELSEWHERE)

    def read_from(value: object) -> Path:
        return _portable(PurePosixPath(values.filled_text(value)))

    def write_to(value: object) -> Path:
        return _portable(relative_path(value))

    def guest_directory(value: object) -> PurePosixPath:
        return PurePosixPath(values.filled_text(value))

    task = MachineTask(
        argv=table.require("command", values.command),
        environment=_environment(table.table("environment")),
        directory=table.get("directory", guest_directory, None),
        stdin=table.get("stdin", read_from, None),
        stdout=table.get("stdout", write_to, None),
        stderr=table.get("stderr", write_to, None),
        time_limit=time_limit,
    )
    _refuse_shared_streams(table, task)
    return task


def _refuse_shared_streams(table: Table, task: MachineTask) -> None:
    """Refuse two streams that are one file: each would be overwritten by the other."""
    seen: dict[Path, str] = {}
    for name, path in (("stdin", task.stdin), ("stdout", task.stdout), ("stderr", task.stderr)):
        if path is not None and seen.setdefault(path, name) != name:
            expected = "another file, which its own output does not replace"
            raise table.fault(name, f"the file of {seen[path]}", expected)


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
    def named(value: object) -> InputFile:
        text = values.filled_text(value)
        _portable(PurePosixPath(text))
        return input_file(text, directory)

    return _file(entry, named)


def _outputs(files: Table, printed: Collection[PurePosixPath]) -> tuple[OutputFile, ...]:
    """Read the outputs; `printed`: files of the host that have what tasks print."""
    all_entries = files.entries("output", "an array of files", MOST_FILES)
    outputs = tuple(_output(entry) for entry in all_entries)
    # What matches a pattern is known when the job has run, and is checked then.
    entries = [
        entry for entry, file in zip(all_entries, outputs, strict=True) if not file.is_pattern
    ]
    destinations = tuple(file.destination for file in outputs if not file.is_pattern)
    _refuse_repetition(entries, destinations)
    for entry, destination in zip(entries, destinations, strict=True):
        if not is_portable(destination):
            raise entry.fault(values.describe(str(destination)), PORTABLE_NAME)
    index = first_clash(destinations)
    if index is not None:
        clashing = values.describe(str(destinations[index]))
        raise entries[index].fault(
            f"{clashing}, which Windows does not distinguish from another destination",
            "names that differ in more than upper and lower case",
        )
    for entry, destination in zip(entries, destinations, strict=True):
        if overlapping(destination, printed) is not None:
            raise entry.fault(
                f"{values.describe(str(destination))}, where a task's stdout or stderr goes",
                "a destination of its own",
            )
    index = first_around(destinations)
    if index is not None:
        raise entries[index].fault(
            f"{values.describe(str(destinations[index]))} after an output that is in it",
            "the directory before what is put into it",
        )
    return outputs


def _output(entry: Entry) -> OutputFile:
    """Read an output: a name, a pattern, or a table with one of the two and a destination."""

    def named(value: object) -> OutputFile:
        return output_file(values.filled_text(value))

    if entry.is_table:
        table = entry.table()
        table.check_keys(_OUTPUT_FILE, {})
        if "pattern" not in table:
            return _file(entry, named)
        if "from" in table:
            raise table.fault("from", "both from and pattern", "one of them")
        file = table.require("pattern", _pattern)
        destination = table.get("to", relative_path, None)
        if destination is None:
            return file
        if not is_portable(destination):
            raise table.fault("to", values.describe(str(destination)), PORTABLE_NAME)
        return file._replace(destination=destination, keeps_path=False)

    def named_or_pattern(value: object) -> OutputFile:
        # No host may have such names, so nobody means a file by them.
        is_pattern = any(sign in values.filled_text(value) for sign in "*?")
        return _pattern(value) if is_pattern else named(value)

    return entry.value(named_or_pattern)


def _pattern(value: object) -> OutputFile:
    """Read a pattern of the shell, what matches which keeps its path."""
    return OutputFile(relative_path(value), PurePosixPath(), is_pattern=True)


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


def _portable(path: PurePosixPath) -> Path:
    """Return a path of the host, whose parts Windows must be able to store.

    Raises UnexpectedValueError.
    """
    parts = [part for part in path.parts if part not in ("/", "//", "..")]
    if not is_portable(PurePosixPath(*parts)):
        raise values.UnexpectedValueError(values.describe(str(path)), PORTABLE_NAME)
    return Path(path)
