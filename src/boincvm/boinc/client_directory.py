"""Write a BOINC client's data directory with one task: no server is needed.

The client reads `client_state.xml` as if it had written it itself, so a file that names a project,
an application, its files, a workunit and a result makes it start that task within a second. The
elements are those that the client writes (BOINC client/client_state.cpp, client_types.cpp).
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

MASTER_URL = "http://127.0.0.1:1/rig/"
"""The project's URL; nothing listens there."""
PROJECT = "127.0.0.1_1_rig"
APP, WORKUNIT, RESULT = "app", "work", "work_0"
PLATFORM = "x86_64-pc-linux-gnu"
_FAR_AWAY = 4_000_000_000
"""A deadline, in seconds since 1970."""


@dataclass(frozen=True)
class TaskFile:
    """A file of the application or an input, in the project directory as `name`."""

    name: str
    content: bytes | Path
    """The bytes, or a file to copy."""
    open_name: str = ""
    """The application's name for the file in the slot."""
    copy: bool = False
    """The slot has a copy, not a soft link."""
    executable: bool = False


@dataclass(frozen=True)
class Output:
    name: str
    open_name: str


@dataclass(frozen=True)
class Work:
    """One task."""

    app_files: Sequence[TaskFile]
    """The first one is the main program."""
    inputs: Sequence[TaskFile] = ()
    outputs: Sequence[Output] = ()
    command_line: str = ""
    api_version: str = "7.20.0"
    is_wrapper: bool = True
    cpus: float = 1.0
    plan_class: str = ""
    memory_bound: float = 2e9
    """Bytes."""
    disk_bound: float = 1e10
    """Bytes."""
    operations: float = 1e14
    operations_bound: float = 1e17
    """Divided by `speed` it gives the client's limit of the run time, in seconds."""
    speed: float = 1e10


@dataclass(frozen=True)
class Preferences:
    """The volunteer's preferences."""

    leave_in_memory: bool = True
    cpu_limit: float = 100.0
    """Percent."""
    checkpoint_period: float = 60.0
    """Seconds."""


LOG_FLAGS = (
    *("task", "task_debug", "slot_debug", "app_msg_receive", "app_msg_send", "checkpoint_debug"),
)
"""What the client can tell about a task."""


def lay_out(
    directory: Path, work: Work, preferences: Preferences, log_flags: Sequence[str] = LOG_FLAGS
) -> Path:
    """Write the data directory; return the project's directory. Raises OSError."""
    project = directory / "projects" / PROJECT
    project.mkdir(parents=True)
    (directory / "slots").mkdir()
    for file in (*work.app_files, *work.inputs):
        _write_file(file, project / file.name)
    account = f"<account>{_tag('master_url', MASTER_URL)}{_tag('authenticator', 'none')}</account>"
    (directory / f"account_{PROJECT}.xml").write_text(account)
    (directory / "cc_config.xml").write_text(_cc_config(log_flags))
    (directory / "client_state.xml").write_text(_client_state(work, project))
    write_preferences(directory, preferences)
    return project


def write_preferences(directory: Path, preferences: Preferences) -> None:
    """Write the preferences, which the client reads at its start, or when it is told to."""
    values = {
        # Otherwise the client stops all work while other programs are busy here.
        "suspend_cpu_usage": 0,
        "suspend_if_no_recent_input": 0,
        "run_if_user_active": 1,
        "run_on_batteries": 1,
        "max_ncpus_pct": 100,
        "ram_max_used_busy_pct": 90,
        "ram_max_used_idle_pct": 90,
        "disk_min_free_gb": 0.01,
        "leave_apps_in_memory": int(preferences.leave_in_memory),
        "cpu_usage_limit": preferences.cpu_limit,
        "disk_interval": preferences.checkpoint_period,
    }
    text = "".join(_tag(name, value) for name, value in values.items())
    target = directory / "global_prefs_override.xml"
    target.write_text(f"<global_preferences>{text}</global_preferences>\n")


def _write_file(file: TaskFile, target: Path) -> None:
    if isinstance(file.content, Path):
        shutil.copyfile(file.content, target)
    else:
        target.write_bytes(file.content)
    target.chmod(0o755 if file.executable else 0o644)


def _tag(name: str, value: object) -> str:
    return f"<{name}>{escape(str(value))}</{name}>\n"


def _cc_config(flags: Sequence[str]) -> str:
    options = (
        "allow_multiple_clients",
        "dont_contact_ref_site",
        "dont_use_vbox",
        "no_alt_platform",
        "no_gpus",
        "no_info_fetch",
        "skip_cpu_benchmarks",
        "suppress_net_info",
        "unsigned_apps_ok",
    )
    log_flags = "".join(_tag(flag, 1) for flag in flags)
    chosen = "".join(_tag(option, 1) for option in options)
    return f"<cc_config><log_flags>{log_flags}</log_flags><options>{chosen}</options></cc_config>\n"


def _client_state(work: Work, project: Path) -> str:
    files = [*work.app_files, *work.inputs]
    parts = [
        "<client_state>\n",
        _tag("platform_name", PLATFORM),
        f"<project>{_tag('master_url', MASTER_URL)}{_tag('project_name', 'rig')}</project>\n",
        f"<app>{_tag('name', APP)}{_tag('user_friendly_name', 'An application')}</app>\n",
        *(_file_info(file, project) for file in files),
        *(_output_info(output) for output in work.outputs),
        _app_version(work),
        _workunit(work),
        _result(work),
        # 1: always, 3: never (BOINC lib/common_defs.h)
        _tag("user_run_request", 1),
        _tag("user_network_request", 3),
        "</client_state>\n",
    ]
    return "".join(parts)


def _file_info(file: TaskFile, project: Path) -> str:
    size = (project / file.name).stat().st_size
    executable = "<executable/>\n" if file.executable else ""
    return (
        f"<file_info>\n{_tag('name', file.name)}{_tag('nbytes', size)}{_tag('max_nbytes', 0)}"
        f"{executable}{_tag('status', 1)}</file_info>\n"
    )


def _output_info(output: Output) -> str:
    return (
        f"<file_info>\n{_tag('name', output.name)}{_tag('nbytes', 0)}{_tag('max_nbytes', 1e9)}"
        f"<generated_locally/>\n{_tag('status', 0)}"
        f"{_tag('upload_url', MASTER_URL + 'upload')}</file_info>\n"
    )


def _file_ref(name: str, open_name: str, *flags: str) -> str:
    opened = _tag("open_name", open_name) if open_name else ""
    return f"<file_ref>\n{_tag('file_name', name)}{opened}{''.join(flags)}</file_ref>\n"


def _references(files: Sequence[TaskFile]) -> str:
    return "".join(_reference(file) for file in files)


def _reference(file: TaskFile, *flags: str) -> str:
    copied = ("<copy_file/>\n",) if file.copy else ()
    return _file_ref(file.name, file.open_name, *copied, *flags)


def _app_version(work: Work) -> str:
    main, *others = work.app_files
    is_wrapper = "<is_wrapper/>\n" if work.is_wrapper else ""
    return (
        f"<app_version>\n{_tag('app_name', APP)}{_tag('version_num', 100)}"
        f"{_tag('platform', PLATFORM)}{_tag('plan_class', work.plan_class)}"
        f"{_tag('avg_ncpus', work.cpus)}{_tag('flops', work.speed)}"
        f"{_tag('api_version', work.api_version)}"
        f"{_reference(main, '<main_program/>')}{_references(others)}"
        f"{is_wrapper}</app_version>\n"
    )


def _workunit(work: Work) -> str:
    return (
        f"<workunit>\n{_tag('name', WORKUNIT)}{_tag('app_name', APP)}{_tag('version_num', 100)}"
        f"{_tag('command_line', work.command_line)}{_tag('rsc_fpops_est', work.operations)}"
        f"{_tag('rsc_fpops_bound', work.operations_bound)}"
        f"{_tag('rsc_memory_bound', work.memory_bound)}{_tag('rsc_disk_bound', work.disk_bound)}"
        f"{_references(work.inputs)}</workunit>\n"
    )


def _result(work: Work) -> str:
    outputs = "".join(_file_ref(output.name, output.open_name) for output in work.outputs)
    return (
        f"<result>\n{_tag('name', RESULT)}{_tag('wu_name', WORKUNIT)}{_tag('platform', PLATFORM)}"
        f"{_tag('version_num', 100)}{_tag('plan_class', work.plan_class)}{_tag('state', 2)}"
        f"{_tag('report_deadline', _FAR_AWAY)}{outputs}</result>\n"
    )
