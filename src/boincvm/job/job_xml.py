"""Reads job.xml, of BOINC's wrapper and of VMWrapper, with our additions (docs/job-xml.md)."""

import math

from boincvm.job.boinc_job import (
    BoincJob,
    CpuTimeSource,
    MachineUse,
    TaskDescription,
    ZipOutput,
)
from boincvm.job.job_xml_fields import Fields, Source, is_directory
from boincvm.job.job_xml_machines import OF_VMWRAPPER, OURS, Machines, check_host_task
from boincvm.job.values import describe
from boincvm.lenient_xml import Element, XmlError, parse

LARGEST_JOB_FILE = 1 << 20
"""Bytes."""
MOST_TASKS = 1000
LARGEST_WEIGHT = 1e100
"""The sum of the weights of all tasks is finite."""
LARGEST_SCALE = 1e6

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
_TASK = (*_PROGRAM, *OF_VMWRAPPER, *OURS)


def read_job_xml(data: bytes, name: str) -> BoincJob:
    """The job that the file `name` with the content `data` describes.

    Raises JobFileError with `NAME:LINE: found X, expected Y`, whatever the bytes are.
    """
    source = Source(name)
    try:
        root = parse(data)
    except XmlError as error:
        raise source.fault(error.line, error.found, error.expected) from error
    if root.name != "job_desc":
        raise source.fault(root.line, f"the element {describe(root.name)}", "<job_desc>")
    return _job(Fields(source, root, _JOB))


def _job(job: Fields) -> BoincJob:
    count = sum(len(job.all(name)) for name in _TASK_LISTS)
    if count > MOST_TASKS:
        raise job.source.fault(job.line, f"{count} tasks", f"at most {MOST_TASKS}")
    tasks = _tasks(job)
    unzip_tasks = tuple(_host_task(job.source, element) for element in job.all("unzip_task"))
    managers = tuple(_host_task(job.source, element) for element in job.all("VMmanage_task"))
    unzip_input, zip_output = _archives(job)
    return BoincJob(
        tasks=_with_weights([task for task in tasks if not task.is_daemon]),
        daemons=tuple(task for task in tasks if task.is_daemon),
        unzip_input=unzip_input,
        zip_output=zip_output,
        graphics=job.switch("enable_graphics_support") or False,
        unzip_tasks=unzip_tasks,
        machine_managers=managers,
        cpu_time=_cpu_time(job),
        cpu_time_scale=_cpu_time_scale(job),
        ignored=tuple(job.source.ignored),
    )


def _tasks(job: Fields) -> list[TaskDescription]:
    """All of `<task>`, daemons too."""
    elements = job.all("task")
    all_fields = [Fields(job.source, element, _TASK) for element in elements]
    # VMWrapper appends its arguments to every task, unasked.
    uses_machines = any(task.last("virtualmachine") for task in all_fields)
    appends = uses_machines or bool(job.all("unzip_task") or job.all("VMmanage_task"))
    machines = Machines()
    tasks = [_task(task, machines.use(task), appends) for task in all_fields]
    if all(task.is_daemon for task in tasks):
        found = "daemons only" if tasks else "no task"
        raise job.source.fault(job.line, found, "at least one <task> that is not a <daemon/>")
    return tasks


def _host_task(source: Source, element: Element) -> TaskDescription:
    """One of VMWrapper's tasks that always run on the host."""
    task = Fields(source, element, _TASK)
    machine = task.last("virtualmachine")
    if machine is not None:
        expected = f"none: a <{element.name}> runs on the host"
        raise source.fault(machine.line, "<virtualmachine>", expected)
    check_host_task(task)
    return _task(task, None, appends=False)


def _task(task: Fields, machine: MachineUse | None, appends: bool) -> TaskDescription:
    is_daemon = task.switch("daemon") or False
    if is_daemon and machine is not None:
        expected = "a daemon of the host, or a task"
        raise task.source.fault(task.line, "a daemon in a virtual machine", expected)
    time_limit = task.real("time_limit")
    appends_as_told = task.switch("append_cmdline_args")
    appends = appends and not is_daemon if appends_as_told is None else appends_as_told
    return TaskDescription(
        application=_application(task, machine),
        line=task.line,
        command_line=task.text("command_line"),
        exec_dir=_exec_dir(task, machine),
        environment=_environment(task),
        stdin_filename=task.file_name("stdin_filename"),
        stdout_filename=task.file_name("stdout_filename"),
        stderr_filename=task.file_name("stderr_filename"),
        checkpoint_filename=task.file_name("checkpoint_filename"),
        fraction_done_filename=task.file_name("fraction_done_filename"),
        weight=_weight(task),
        is_daemon=is_daemon,
        multi_process=task.switch("multi_process") or False,
        append_command_line=appends,
        time_limit=time_limit if time_limit and 0 < time_limit < math.inf else None,
        priority=task.integer("priority"),
        forward_slashes=task.switch("forward_slashes") or False,
        machine=machine,
    )


def _application(task: Fields, machine: MachineUse | None) -> str:
    application = task.text("application")
    element = task.last("application")
    if not application and (machine is None or machine.application_path is None):
        raise task.source.fault(task.line, "a task without an application", "<application>")
    if element is not None and machine is not None and machine.copy_application:
        task.file_name_of(element)
    return application


def _exec_dir(task: Fields, machine: MachineUse | None) -> str | None:
    element = task.last("exec_dir")
    text = task.text("exec_dir")
    # Where a program runs in its own machine is not the host's concern.
    if element is not None and text and machine is None and not is_directory(text):
        expected = "a directory: relative, or from $PROJECT_DIR or $PWD, and without '..'"
        raise task.fault(element, expected)
    return text or None


def _environment(task: Fields) -> tuple[tuple[str, str], ...]:
    environment: list[tuple[str, str]] = []
    for element in task.all("setenv"):
        name, equals, value = task.text_of(element).partition("=")
        if name and equals:
            environment.append((name, value))
        else:
            task.source.ignore(element.line, f"<setenv> {describe(element.text)}", "NAME=VALUE")
    return tuple(environment)


def _weight(task: Fields) -> float:
    weight = task.real("weight")
    if weight is None or 0 <= weight <= LARGEST_WEIGHT:
        return 1.0 if weight is None else weight
    task.source.ignore(task.line, f"<weight> {weight}", f"0 to {LARGEST_WEIGHT}")
    return 1.0


def _with_weights(tasks: list[TaskDescription]) -> tuple[TaskDescription, ...]:
    """`tasks`, all alike where none has any weight: what is done is a share of the sum."""
    if sum(task.weight for task in tasks) > 0:
        return tuple(tasks)
    return tuple(task._replace(weight=1.0) for task in tasks)


def _archives(job: Fields) -> tuple[tuple[str, ...], ZipOutput | None]:
    """What is unpacked at the beginning and packed at the end."""
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


def _cpu_time_scale(job: Fields) -> float:
    scale = job.sure_real("cpu_time_scale", LARGEST_SCALE)
    return 1.0 if scale is None else scale
