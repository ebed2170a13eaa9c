"""From what a job.xml says of a task to what is started: names resolved, macros expanded."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boincvm.boinc.soft_link import target
from boincvm.errors import InputFileError, JobFileError
from boincvm.guestlink.guest_paths import WORK
from boincvm.job.boinc_job import MachineUse, TaskDescription
from boincvm.job.command_line import split
from boincvm.job.macros import Macros, expand, resolve_names, words_with_physical_names
from boincvm.job.model import MIB, InputFile, MachineShape, OutputFile
from boincvm.wrapper.signed_files import is_signed
from boincvm.wrapper.visible_paths import VisiblePaths

DEFAULT_MEMORY = 512 * MIB
JOB_FILE = "job.xml"
PROJECT_DIRECTORY = "$PROJECT_DIR"


class Surroundings(NamedTuple):
    """Where a job runs, and what the client and the wrapper's own arguments say.

    `resolve` gives the physical path of a logical name; it never leads out of the slot and
    the project's directory. `arguments` are those that the wrapper does not know itself.
    `is_for_vmwrapper`: words of a command line that begin with `./` are logical names.
    `app_files`: of the app version, which no output may replace.
    `signed`: the only programs, they and copies of them, that may be started on the host, None
    for no such limit.
    `memory`: bytes, of machines whose job file does not say.
    """

    slot: Path
    project_directory: Path
    resolve: Callable[[str], Path]
    macros: Macros
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    is_for_vmwrapper: bool
    app_files: frozenset[Path] = frozenset()
    signed: frozenset[Path] | None = None
    memory: int | None = None


class HostCommand(NamedTuple):
    """A program of the host, ready to be started."""

    argv: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str]
    stdin: Path | None
    stdout: Path | None
    stderr: Path | None
    fraction_done: Path | None
    checkpoint: Path | None


class MachineCommand(NamedTuple):
    """A program of the guest, ready to be started, and what goes in and comes out.

    `fraction_done` is a file of the guest; `packages` are files of the host.
    """

    argv: tuple[str, ...]
    directory: PurePosixPath
    environment: Mapping[str, str]
    stdin: Path | None
    stdout: Path | None
    stderr: Path | None
    fraction_done: PurePosixPath | None
    inputs: tuple[InputFile, ...]
    outputs: tuple[OutputFile, ...]
    packages: tuple[Path, ...]

    def output_streams(self) -> dict[str, Path]:
        """The files of its output, by stream."""
        named = {"stdout": self.stdout, "stderr": self.stderr}
        return {stream: path for stream, path in named.items() if path is not None}


def host_command(task: TaskDescription, around: Surroundings) -> HostCommand:
    """Raises JobFileError, InputFileError. With `around.signed` it may have to read the program."""
    application = _application(task.application, around)
    if around.signed is not None and not is_signed(application, around.signed):
        raise JobFileError(
            f"{task.application} is no file of the app version, so nobody has signed it, and"
            f" neither is {JOB_FILE}",
            hint=f"run it in a virtual machine, or let {JOB_FILE} be a file of the app version",
        )
    if not os.path.isfile(application):  # noqa: PTH113 - false also for a name that is too long
        raise InputFileError(
            f"the application {task.application} is missing: there is no"
            f" {VisiblePaths(around.slot, around.project_directory).of(application, around.slot)}",
            hint="it must be a file of the app version or of the workunit",
        )

    directory = around.slot
    if task.exec_dir:
        directory = _inside(around.slot / expand(task.exec_dir, around.macros), around)
    visible = VisiblePaths(around.slot, around.project_directory)

    def physical(name: str) -> str:
        return visible.of(_physical(name, around), directory)

    words = split(resolve_names(expand(task.command_line, around.macros), physical))
    if around.is_for_vmwrapper:
        words = words_with_physical_names(words, physical)
    own = [resolve_names(word, physical) for word in _own_arguments(task, around)]

    def file(name: str | None) -> Path | None:
        return around.resolve(name) if name else None

    def output(name: str | None) -> Path | None:
        return output_path(name, around) if name else None

    return HostCommand(
        argv=(
            visible.of(_started_as(task.application, application, around), directory),
            *words,
            *own,
        ),
        directory=directory,
        environment={**around.environment, **_environment(task, around.macros)},
        stdin=file(task.stdin_filename),
        stdout=output(task.stdout_filename),
        stderr=output(task.stderr_filename),
        fraction_done=output(task.fraction_done_filename),  # which goes at the start
        checkpoint=file(task.checkpoint_filename),
    )


def machine_command(task: TaskDescription, use: MachineUse, around: Surroundings) -> MachineCommand:
    """In the guest the job's files lie in /work by their logical names, so a name resolves to
    itself there. Raises JobFileError, InputFileError."""
    macros = Macros(str(WORK), _threads(use, around), str(WORK), None)
    text = resolve_names(expand(task.command_line, macros), lambda name: name)
    own = [resolve_names(word, lambda name: name) for word in _own_arguments(task, around)]
    directory = PurePosixPath(expand(task.exec_dir, macros)) if task.exec_dir else WORK
    inputs = [_input(name, around) for name in use.copy_in]
    if use.copy_application:
        place = _place(use.application_path, task.application)
        if not place.is_relative_to(WORK):
            raise JobFileError(
                f"the application cannot be copied to {place}: files go to {WORK} in the guest"
            )
        inputs.append(InputFile(_application(task.application, around), place.relative_to(WORK)))
        program = str(place)
    elif use.application_path:
        program = str(_place(use.application_path, task.application))
    else:
        program = task.application  # looked up in the guest's PATH

    def file(name: str | None) -> Path | None:
        return around.resolve(name) if name else None

    def output(name: str | None) -> Path | None:
        return output_path(name, around) if name else None

    return MachineCommand(
        argv=(program, *split(text), *own),
        directory=WORK / directory,
        environment=_environment(task, macros),
        stdin=file(task.stdin_filename),
        stdout=output(task.stdout_filename),
        stderr=output(task.stderr_filename),
        fraction_done=WORK / task.fraction_done_filename if task.fraction_done_filename else None,
        inputs=tuple(inputs),
        outputs=tuple(_output(name, around) for name in use.copy_out),
        packages=tuple(around.resolve(name) for name in use.packages),
    )


def machine_shape(use: MachineUse, around: Surroundings) -> MachineShape:
    """The machine that `use` asks for."""
    return MachineShape(
        image=use.image,
        memory=use.memory or around.memory or DEFAULT_MEMORY,
        cpus=_threads(use, around),
        disk=use.disk,
        network=use.network,
    )


def _threads(use: MachineUse, around: Surroundings) -> int:
    return use.cpus or max(around.macros.threads or 1, 1)


def _own_arguments(task: TaskDescription, around: Surroundings) -> tuple[str, ...]:
    return around.arguments if task.append_command_line else ()


def _environment(task: TaskDescription, macros: Macros) -> dict[str, str]:
    return {expand(name, macros): expand(value, macros) for name, value in task.environment}


def _physical(name: str, around: Surroundings) -> Path:
    """What `boinc_resolve(name)` stands for. A macro in it may have made a path of it, which is
    a file of the project itself, or the slot's."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        path = Path(os.path.normpath(around.slot / name))
        if path != around.slot and path.is_relative_to(around.slot):
            return around.resolve(str(path.relative_to(around.slot)))
        if path.is_relative_to(around.project_directory):
            return _inside(path, around)
    return around.resolve(name)


def _started_as(name: str, application: Path, around: Surroundings) -> Path:
    """The path by which the application is started: a symbolic link keeps its own name, by which
    one program that is many (busybox, say) knows what it is to be."""
    path = around.slot / name
    try:
        leads_to = None if path.is_symlink() else target(path)
    except OSError:
        leads_to = None
    link = path if leads_to is None else Path(os.path.normpath(around.slot / leads_to))
    return link if link.is_symlink() else application


def _application(name: str, around: Surroundings) -> Path:
    if ".." in PurePosixPath(name).parts:
        raise JobFileError(
            f"the application {name} leads through '..'",
            hint="name a file of the slot or of $PROJECT_DIR, or an absolute path",
        )
    _, macro, rest = name.partition(PROJECT_DIRECTORY)
    if macro:
        return _inside(around.project_directory / rest.lstrip("/"), around)
    # BOINC's wrapper starts whatever program it is told to, and one that we start may start any
    # other: to refuse /usr/bin/python3 would protect nobody.
    return Path(name) if name.startswith("/") else around.resolve(name)


def _inside(path: Path, around: Surroundings) -> Path:
    """`path` unless it leads out of the slot and the project's directory."""
    real = Path(os.path.realpath(path))
    roots = (around.slot, around.project_directory)
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        raise JobFileError(
            f"{path} leads out of the slot and of the project's directory",
            hint="a job may use no other directory of the host",
        )
    return path


def _place(path: str | None, application: str) -> PurePosixPath:
    name = PurePosixPath(application).name
    if not path:
        return WORK / name
    return WORK / path / name if path.endswith("/") else WORK / path


def _input(name: str, around: Surroundings) -> InputFile:
    return InputFile(around.resolve(name), PurePosixPath(name))


def _output(name: str, around: Surroundings) -> OutputFile:
    return OutputFile(PurePosixPath(name), PurePosixPath(output_path(name, around)))


def output_path(name: str, around: Surroundings) -> Path:
    """Where the output `name` goes. Raises JobFileError for a file of the app version: it is
    signed, and shared by all tasks of the application."""
    path = around.resolve(name)
    if path in around.app_files:
        raise JobFileError(f"{name} is a file of the app version, so it cannot be an output")
    return path
