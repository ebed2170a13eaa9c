"""Reads job.xml, of BOINC's wrapper and of VMWrapper, with our additions (docs/job-xml.md).

The result contains no macros, and every machine has a size. File names stay names: soft links are
resolved when a task starts.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from boincvm.errors import JobFileError
from boincvm.job.boinc_settings import BoincSettings, CpuTimeSource, ZipOutput
from boincvm.job.command_line import split
from boincvm.job.macros import Macros, expand, resolve_names
from boincvm.job.model import (
    GUEST_DIRECTORY,
    MIB,
    NO_REQUEST,
    CheckpointNeed,
    DriverRequest,
    HostTask,
    InputFile,
    Job,
    MachineShape,
    MachineTask,
    OutputFile,
    Task,
)
from boincvm.job.values import (
    DISK_BOUNDS,
    MEMORY_BOUNDS,
    MOST_CPUS,
    UnexpectedValueError,
    checkpoint_need,
    describe,
    driver_name,
)
from boincvm.job.wrapper_arguments import WrapperArguments, arguments_of_children
from boincvm.job.xml_fields import Fields, Source, is_directory
from boincvm.lenient_xml import Element, XmlError, parse

LARGEST_JOB_FILE = 1 << 20
"""Bytes."""
MOST_TASKS = 1000
LARGEST_WEIGHT = 1e100
"""Chosen so that the sum of all tasks' weights is finite."""
LARGEST_SCALE = 1e6

Value = TypeVar("Value")

_TASK_LISTS = ("task", "unzip_task", "VMmanage_task")
_JOB = (
    *_TASK_LISTS,
    "unzip_input",
    "zip_output",
    "enable_graphics_support",
    "cpu_time",
    "cpu_time_scale",
)
_PROGRAM = (
    "application",
    "command_line",
    "exec_dir",
    "setenv",
    "stdin_filename",
    "stdout_filename",
    "stderr_filename",
    "checkpoint_filename",
    "fraction_done_filename",
    "weight",
    "daemon",
    "multi_process",
    "append_cmdline_args",
    "time_limit",
    "priority",
    "forward_slashes",
)
_OF_VMWRAPPER = (
    "virtualmachine",
    "image",
    "app_pathVM",
    "copy_app_to_VM",
    "copy_file_to_VM",
    "copy_file_from_VM",
)
_OURS = ("memory_mb", "cpus", "disk_mb", "network", "checkpoint", "driver", "install")
_TASK = (*_PROGRAM, *_OF_VMWRAPPER, *_OURS)


class Expansion(NamedTuple):
    """The values for what a job's file leaves open."""

    macros: Macros | None = None
    """For tasks on the host; None: macros stay as they are. In a guest they are always known."""
    arguments: WrapperArguments = WrapperArguments()
    """The wrapper's arguments from the client: arguments of the tasks, the size of machines."""


AS_WRITTEN = Expansion()
"""For code that only inspects a job and does not run it."""


def read_job_xml(
    data: bytes, name: str, directory: Path = Path(), expansion: Expansion = AS_WRITTEN
) -> tuple[Job[Task], BoincSettings]:
    """Read the job in the file `name` with the content `data`; it runs in `directory`.

    Raises JobFileError with `NAME:LINE: found X, expected Y`, whatever the bytes are, and
    UsageError for an argument that belongs to neither the wrapper nor its tasks.
    """
    source = Source(name)
    try:
        root = parse(data)
    except XmlError as error:
        raise source.fault(error.line, error.found, error.expected) from error
    if root.name != "job_desc":
        raise source.fault(root.line, f"the element {describe(root.name)}", "<job_desc>")
    job = Fields(source, root, _JOB)
    count = sum(len(job.all(name)) for name in _TASK_LISTS)
    if count > MOST_TASKS:
        raise source.fault(job.line, f"{count} tasks", f"at most {MOST_TASKS}")
    return _Reader(job, expansion).read(directory)


class _Reader:
    """Reads one file, whose outermost element is `job`."""

    def __init__(self, job: Fields, expansion: Expansion) -> None:
        self._job = job
        self._elements = [Fields(job.source, element, _TASK) for element in job.all("task")]
        uses_machines = any(task.last("virtualmachine") for task in self._elements)
        is_for_vmwrapper = bool(uses_machines or job.all("unzip_task") or job.all("VMmanage_task"))
        self._is_for_vmwrapper = is_for_vmwrapper
        self._arguments = arguments_of_children(
            expansion.arguments, is_for_vmwrapper=is_for_vmwrapper
        )
        self._macros = expansion.macros
        self._machines = _Machines(expansion.arguments)

    def read(self, directory: Path) -> tuple[Job[Task], BoincSettings]:
        """Read the whole file. Raises JobFileError."""
        job = self._job
        daemons: list[HostTask] = []
        tasks: list[Task] = []
        for element in self._elements:
            is_daemon = element.switch("daemon") or False
            machine = self._machines.machine_of(element)
            if machine is not None:
                if is_daemon:
                    expected = "a daemon of the host, or a task"
                    raise job.source.fault(element.line, "a daemon in a virtual machine", expected)
                tasks.append(self._machine_task(element, machine))
            elif is_daemon:
                daemons.append(self._host_task(element, appends=False))
            else:
                tasks.append(self._host_task(element, appends=self._is_for_vmwrapper))
        if not tasks:
            found = "daemons only" if daemons else "no task"
            raise job.source.fault(job.line, found, "at least one <task> that is not a <daemon/>")
        unzip_tasks = tuple(map(self._task_of_vmwrapper, job.all("unzip_task")))
        managers = tuple(map(self._task_of_vmwrapper, job.all("VMmanage_task")))
        unzip_input, zip_output = _archives(job)
        settings = BoincSettings(
            daemons=tuple(daemons),
            unzip_tasks=unzip_tasks,
            machine_managers=managers,
            unzip_input=unzip_input,
            zip_output=zip_output,
            graphics=job.switch("enable_graphics_support") or False,
            cpu_time=_cpu_time(job),
            cpu_time_scale=job.strict_real("cpu_time_scale", LARGEST_SCALE) or 1.0,
            is_for_vmwrapper=self._is_for_vmwrapper,
            ignored=tuple(job.source.ignored),
        )
        machines = self._machines
        requests = machines.driver_requests
        return (
            Job(_with_weights(tasks), directory, machines.shapes, driver_requests=requests),
            settings,
        )

    def _task_of_vmwrapper(self, element: Element) -> HostTask:
        """Read one of VMWrapper's tasks that always run on the host."""
        task = Fields(self._job.source, element, _TASK)
        machine = task.last("virtualmachine")
        if machine is not None:
            expected = f"none: a <{element.name}> runs on the host"
            raise task.source.fault(machine.line, "<virtualmachine>", expected)
        _check_host_task(task)
        return self._host_task(task, appends=False)

    def _host_task(self, task: Fields, *, appends: bool) -> HostTask:
        """Read a task of the host; with `appends` it gets the wrapper's arguments by default."""

        def expanded(text: str) -> str:
            return text if self._macros is None else expand(text, self._macros)

        element, directory = task.last("exec_dir"), task.text("exec_dir")
        if element is not None and directory and not is_directory(directory):
            expected = "a directory: relative, or from $PROJECT_DIR or $PWD, and without '..'"
            raise task.fault(element, expected)
        application = task.text("application")
        if not application:
            raise _no_application(task)
        return HostTask(
            application=application,
            command_line=expanded(task.text("command_line")),
            arguments=self._own_arguments(task, appends=appends),
            directory=expanded(directory) or None,
            environment={
                expanded(name): expanded(value) for name, value in _environment(task).items()
            },
            stdin=_file(task, "stdin_filename"),
            stdout=_file(task, "stdout_filename"),
            stderr=_file(task, "stderr_filename"),
            checkpoint=_file(task, "checkpoint_filename"),
            fraction_done=_file(task, "fraction_done_filename"),
            multi_process=task.switch("multi_process") or False,
            priority=task.integer("priority"),
            time_limit=_time_limit(task),
            weight=_weight(task),
            forward_slashes=task.switch("forward_slashes") or False,
        )

    def _machine_task(self, task: Fields, machine: str) -> MachineTask:
        """Read a task in a machine.

        Files have their logical names in the guest, so a name resolves to itself there.
        """
        work = str(GUEST_DIRECTORY)
        macros = Macros(work, self._machines.shapes[machine].cpus, work, None)

        def resolved(text: str) -> str:
            return resolve_names(text, lambda name: name)

        program, application = _program(task)
        inputs = [
            InputFile(Path(name), PurePosixPath(name))
            for name in task.file_names("copy_file_to_VM")
        ]
        if application is not None:
            inputs.append(application)
        own = map(resolved, self._own_arguments(task, appends=True))
        text = task.text("exec_dir")
        directory = PurePosixPath(expand(text, macros)) if text else None
        # Elements without effect in a machine are checked too: they may be mistakes.
        task.switch("multi_process")
        task.switch("forward_slashes")
        task.integer("priority")
        task.file_name("checkpoint_filename")
        return MachineTask(
            argv=(program, *split(resolved(expand(task.text("command_line"), macros))), *own),
            environment={
                expand(name, macros): expand(value, macros)
                for name, value in _environment(task).items()
            },
            directory=directory,
            stdin=_file(task, "stdin_filename"),
            stdout=_file(task, "stdout_filename"),
            stderr=_file(task, "stderr_filename"),
            machine=machine,
            inputs=tuple(inputs),
            outputs=tuple(
                OutputFile(PurePosixPath(name), PurePosixPath(name))
                for name in task.file_names("copy_file_from_VM")
            ),
            packages=tuple(map(Path, task.file_names("install"))),
            fraction_done=_fraction_done(task, directory),
            time_limit=_time_limit(task),
            weight=_weight(task),
        )

    def _own_arguments(self, task: Fields, *, appends: bool) -> tuple[str, ...]:
        switch = task.switch("append_cmdline_args")
        return self._arguments if (appends if switch is None else switch) else ()


class _Described(NamedTuple):
    """What one task says about its machine, by the names of the elements."""

    image: str
    memory_mb: int | None
    cpus: int | None
    disk_mb: int | None
    network: bool
    checkpoint: CheckpointNeed
    driver: str | None


class _Machines:
    """The virtual machines of the tasks read so far; the first task of each describes it."""

    def __init__(self, arguments: WrapperArguments) -> None:
        self._arguments = arguments
        self._first: dict[str, tuple[_Described, Fields]] = {}
        self.shapes: dict[str, MachineShape] = {}
        self.driver_requests: dict[str, DriverRequest] = {}

    def machine_of(self, task: Fields) -> str | None:
        """Return the name of the machine that `task` runs in, or None for the host.

        Raises JobFileError.
        """
        element = task.last("virtualmachine")
        if element is None:
            _check_host_task(task)
            return None
        name = task.machine_name(element)
        described = _Described(
            image=task.file_name("image") or MachineShape().image,
            memory_mb=task.strict_integer("memory_mb", *(bound // MIB for bound in MEMORY_BOUNDS)),
            cpus=task.strict_integer("cpus", 1, MOST_CPUS),
            disk_mb=task.strict_integer("disk_mb", *(bound // MIB for bound in DISK_BOUNDS)),
            network=task.strict_switch("network") or False,
            checkpoint=_value(task, "checkpoint", checkpoint_need, NO_REQUEST.checkpoint),
            driver=_value(task, "driver", driver_name, NO_REQUEST.driver),
        )
        if name in self._first:
            self._refuse_contradiction(name, described, task)
        else:
            self._first[name] = described, task
            self.shapes[name] = self._shape(described)
            request = DriverRequest(described.driver, described.checkpoint)
            if request != NO_REQUEST:
                self.driver_requests[name] = request
        return name

    def _shape(self, described: _Described) -> MachineShape:
        memory, disk = described.memory_mb, described.disk_mb
        given = self._arguments.memory or MachineShape().memory
        return MachineShape(
            image=described.image,
            memory=given if memory is None else memory * MIB,
            cpus=described.cpus or self._arguments.threads,
            disk=None if disk is None else disk * MIB,
            network=described.network,
        )

    def _refuse_contradiction(self, machine: str, described: _Described, task: Fields) -> None:
        """Raise JobFileError if `task` contradicts what its machine's first task says."""
        first, first_task = self._first[machine]
        before_values = first._asdict()
        for name, value in described._asdict().items():
            element = task.last(name)
            if element is None or value == before_values[name]:
                continue
            before = first_task.last(name)
            expected = f"no <{name}>" if before is None else describe(before.text)
            line = first_task.line if before is None else before.line
            found = f"<{name}> {describe(element.text)} for the machine {describe(machine)}"
            raise task.source.fault(element.line, found, f"what line {line} says: {expected}")


def _value(task: Fields, name: str, convert: Callable[[object], Value], default: Value) -> Value:
    """Return the element `name`, converted by a function of values.py, or `default`."""
    element = task.last(name)
    if element is None:
        return default
    try:
        return convert(task.text_of(element))
    except UnexpectedValueError as error:
        raise task.fault(element, error.expected) from error


def _check_host_task(task: Fields) -> None:
    """Check a task without a machine.

    Elements of ours that describe a machine are errors; VMWrapper's have no effect.
    """
    for name in _OURS:
        element = task.last(name)
        if element is not None:
            raise task.source.fault(element.line, f"<{name}>", "<virtualmachine> in the same task")
    for name in _OF_VMWRAPPER:
        for element in task.all(name):
            task.source.ignore(element.line, f"<{name}>", "<virtualmachine> in the same task")


def _program(task: Fields) -> tuple[str, InputFile | None]:
    """Return the program of a task in a machine, and the host file that it comes from, if any."""
    application, element = task.text("application"), task.last("application")
    path, is_copied = task.text("app_pathVM"), task.strict_switch("copy_app_to_VM")
    if not application and (is_copied or not path):
        raise _no_application(task)
    guest_path = GUEST_DIRECTORY / path
    if not path or path.endswith("/"):
        guest_path /= PurePosixPath(application).name
    if not is_copied:
        # Without a path, the application is looked up in the guest's PATH.
        return (str(guest_path) if path else application), None
    if element is not None:
        task.file_name_of(element)
    # A destination elsewhere is refused when the task starts.
    is_beneath = guest_path.is_relative_to(GUEST_DIRECTORY)
    destination = guest_path.relative_to(GUEST_DIRECTORY) if is_beneath else guest_path
    return str(guest_path), InputFile(Path(application), destination)


def _no_application(task: Fields) -> JobFileError:
    return task.source.fault(task.line, "a task without an application", "<application>")


def _file(task: Fields, element: str) -> Path | None:
    name = task.file_name(element)
    return None if name is None else Path(name)


def _fraction_done(task: Fields, directory: PurePosixPath | None) -> PurePosixPath | None:
    """Return the path of the progress file, relative to where the program starts in the guest."""
    element, name = task.last("fraction_done_filename"), task.file_name("fraction_done_filename")
    if element is None or name is None:
        return None
    path, start = GUEST_DIRECTORY / name, GUEST_DIRECTORY / (directory or "")
    if path != start and path.is_relative_to(start):
        return path.relative_to(start)
    what = f"<{element.name}> {describe(name)}"
    task.source.ignore(element.line, what, "a file beneath the directory that the task starts in")
    return None


def _time_limit(task: Fields) -> float | None:
    seconds = task.real("time_limit")
    return seconds if seconds and 0 < seconds < math.inf else None


def _environment(task: Fields) -> Mapping[str, str]:
    environment: dict[str, str] = {}
    for element in task.all("setenv"):
        name, equals, value = task.text_of(element).partition("=")
        if name and equals:
            environment[name] = value
        else:
            task.source.ignore(element.line, f"<setenv> {describe(element.text)}", "NAME=VALUE")
    return environment


def _weight(task: Fields) -> float:
    weight = task.real("weight")
    if weight is None or 0 <= weight <= LARGEST_WEIGHT:
        return 1.0 if weight is None else weight
    task.source.ignore(task.line, f"<weight> {weight}", f"0 to {LARGEST_WEIGHT}")
    return 1.0


def _with_weights(tasks: list[Task]) -> tuple[Task, ...]:
    """Return `tasks`, with equal weights if they have none: progress is a share of the sum."""
    if sum(task.weight for task in tasks) > 0:
        return tuple(tasks)
    return tuple(task._replace(weight=1.0) for task in tasks)


def _archives(job: Fields) -> tuple[tuple[str, ...], ZipOutput | None]:
    """Return the archives to unpack at the beginning, and the one to pack at the end."""
    unpacked: list[str] = []
    for element in job.all("unzip_input"):
        unpacked += Fields(job.source, element, ("zipfilename",)).file_names("zipfilename")
    zip_name: str | None = None
    patterns: list[str] = []
    for element in job.all("zip_output"):
        output = Fields(job.source, element, ("zipfilename", "filename"))
        zip_name = output.file_name("zipfilename") or zip_name
        patterns += [output.pattern(pattern) for pattern in output.all("filename")]
    return tuple(unpacked), ZipOutput(zip_name, tuple(patterns)) if zip_name else None


def _cpu_time(job: Fields) -> CpuTimeSource:
    element = job.last("cpu_time")
    if element is None:
        return CpuTimeSource.GUEST
    try:
        return CpuTimeSource(job.text_of(element))
    except ValueError as error:
        raise job.fault(element, "guest, host or wall") from error
