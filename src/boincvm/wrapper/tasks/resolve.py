"""Resolves the names of a task's files in a BOINC slot, when the task starts."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boincvm.boinc.soft_link import target
from boincvm.errors import InputFileError, JobFileError
from boincvm.job.command_line import split
from boincvm.job.macros import resolve_names, with_physical_names
from boincvm.job.model import GUEST_DIRECTORY, HostTask, InputFile, MachineTask, OutputFile
from boincvm.wrapper.signed_files import is_signed
from boincvm.wrapper.visible_paths import VisiblePaths

JOB_FILE = "job.xml"
PROJECT_DIRECTORY = "$PROJECT_DIR"


class JobContext(NamedTuple):
    """Where a job runs, and what the client says about its files."""

    slot: Path
    project_directory: Path
    resolve: Callable[[str], Path]
    """Returns the physical path of a logical name, which never leads out of the slot and the
    project's directory. Raises InputFileError."""
    environment: Mapping[str, str]
    """The environment of programs on the host."""
    is_for_vmwrapper: bool
    """Whether words that begin with `./` on a host task's command line are logical names."""
    app_files: frozenset[Path] = frozenset()
    """Files of the app version, which no output may replace."""
    signed: frozenset[Path] | None = None
    """The only files that may be started on the host, with copies of them; None allows any."""

    def output(self, name: str) -> Path:
        """Return the physical path of an output, given its logical name.

        Raises JobFileError for a file of the app version: it is signed, and shared by all tasks of
        the application. Raises InputFileError.
        """
        path = self.resolve(name)
        if path in self.app_files:
            raise JobFileError(f"{name} is a file of the app version, so it cannot be an output")
        return path


class HostCommand(NamedTuple):
    """A program on the host, ready to be started. All paths are physical."""

    argv: tuple[str, ...]
    """Begins with the program's path, which starts from `directory`."""
    directory: Path
    environment: Mapping[str, str]
    stdin: Path | None
    stdout: Path | None
    stderr: Path | None
    fraction_done: Path | None
    checkpoint: Path | None


def host_command(task: HostTask, context: JobContext) -> HostCommand:
    """Resolve all that `task` names. With `context.signed` it may have to read the program.

    Raises JobFileError, InputFileError.
    """
    application = _application(task.application, context)
    if context.signed is not None and not is_signed(application, context.signed):
        raise JobFileError(
            f"{task.application} is not a file of the app version, so it is not signed, and"
            f" neither is {JOB_FILE}",
            hint=f"run it in a virtual machine, or make {JOB_FILE} a file of the app version",
        )
    visible = VisiblePaths(context.slot, context.project_directory)
    if not os.path.isfile(application):  # noqa: PTH113 - false also for a name that is too long
        raise InputFileError(
            f"the application {task.application} is missing: there is no"
            f" {visible.of(application, context.slot)}",
            hint="it must be a file of the app version or of the workunit",
        )
    directory = context.slot
    if task.directory:
        directory = _inside(context.slot / task.directory, context)

    def physical(name: str) -> str:
        return visible.of(_physical(name, context), directory)

    from_command_line = split(resolve_names(task.command_line, physical))
    if context.is_for_vmwrapper:
        from_command_line = with_physical_names(from_command_line, physical)
    arguments = [resolve_names(argument, physical) for argument in task.arguments]
    program = visible.of(_started_as(task.application, application, context), directory)
    return HostCommand(
        argv=(program, *from_command_line, *arguments),
        directory=directory,
        environment={**context.environment, **task.environment},
        stdin=_if_any(context.resolve, task.stdin),
        stdout=_if_any(context.output, task.stdout),
        stderr=_if_any(context.output, task.stderr),
        fraction_done=_if_any(context.output, task.fraction_done),  # removed at the start
        checkpoint=_if_any(context.resolve, task.checkpoint),
    )


def physical_task(task: MachineTask, context: JobContext) -> MachineTask:
    """Return `task` with physical paths for all that it names on the host.

    Raises JobFileError, InputFileError.
    """
    return task._replace(
        stdin=_if_any(context.resolve, task.stdin),
        stdout=_if_any(context.output, task.stdout),
        stderr=_if_any(context.output, task.stderr),
        inputs=tuple(_input(item, context) for item in task.inputs),
        outputs=tuple(
            OutputFile(item.source, PurePosixPath(context.output(str(item.destination))))
            for item in task.outputs
        ),
        packages=tuple(context.resolve(str(name)) for name in task.packages),
    )


def _if_any(look_up: Callable[[str], Path], name: Path | None) -> Path | None:
    return None if name is None else look_up(str(name))


def _input(item: InputFile, context: JobContext) -> InputFile:
    if item.destination.is_absolute():
        raise JobFileError(
            f"the application cannot be copied to {item.destination}: in the"
            f" guest, files are placed in {GUEST_DIRECTORY}"
        )
    if item.source.parts[:1] == (PROJECT_DIRECTORY,):
        return item._replace(source=_application(str(item.source), context))
    return item._replace(source=context.resolve(str(item.source)))


def _physical(name: str, context: JobContext) -> Path:
    """Return the path that `boinc_resolve(name)` stands for.

    A macro may have made the name a path, of a file of the project or of the slot.
    """
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        path = Path(os.path.normpath(context.slot / name))
        if path != context.slot and path.is_relative_to(context.slot):
            return context.resolve(str(path.relative_to(context.slot)))
        if path.is_relative_to(context.project_directory):
            return _inside(path, context)
    return context.resolve(name)


def _started_as(name: str, application: Path, context: JobContext) -> Path:
    """Return the path by which the application is started.

    A symbolic link keeps its own name, because a multi-call program (busybox, for example) chooses
    by it what to do.
    """
    path = context.slot / name
    try:
        leads_to = None if path.is_symlink() else target(path)
    except OSError:
        leads_to = None
    link = path if leads_to is None else Path(os.path.normpath(context.slot / leads_to))
    return link if link.is_symlink() else application


def _application(name: str, context: JobContext) -> Path:
    if ".." in PurePosixPath(name).parts:
        raise JobFileError(
            f"the application {name} contains '..'",
            hint="give a file of the slot or of $PROJECT_DIR, or an absolute path",
        )
    _, macro, rest = name.partition(PROJECT_DIRECTORY)
    if macro:
        return _inside(context.project_directory / rest.lstrip("/"), context)
    # BOINC's wrapper starts any program it is told to, and one that we start may start any
    # other: refusing /usr/bin/python3 would protect nobody.
    return Path(name) if name.startswith("/") else context.resolve(name)


def _inside(path: Path, context: JobContext) -> Path:
    """Return `path` if it does not lead out of the slot and the project's directory.

    Raises JobFileError otherwise.
    """
    real = Path(os.path.realpath(path))
    roots = (context.slot, context.project_directory)
    if not any(real.is_relative_to(os.path.realpath(root)) for root in roots):
        raise JobFileError(
            f"{path} leads outside the slot and the project's directory",
            hint="a job may use no other directory of the host",
        )
    return path
