"""init_data.xml: what the client tells an app about its task, the host and the preferences.

Read as leniently as BOINC reads it: tags are searched for, and a value that is missing, garbled or
out of range gets BOINC's default. (lib/app_ipc.cpp, parse_init_data_file; lib/prefs.cpp, defaults.)
Texts are bytes, decoded as by `byte_text`.
"""

import os
import stat
from pathlib import Path
from typing import NamedTuple

from boincvm.boinc.tags import boolean, element, integer, number, string, unescape
from boincvm.byte_text import decoded
from boincvm.errors import HostError
from boincvm.host.files import open_descriptor

FILE_NAME = "init_data.xml"
LARGEST_FILE = 4 << 20
"""Bytes; only the project preferences have no limit of their own."""
DEFAULT_CHECKPOINT_PERIOD = 300.0
"""Seconds."""
_MOST_APP_FILES = 1000
_BLOCKS = ("project_preferences", "host_info", "proxy_info", "global_preferences")


class InitDataError(HostError):
    """init_data.xml exists but is invalid."""


class Preferences(NamedTuple):
    """The volunteer's preferences that concern a running task."""

    cpu_usage_limit: float = 100.0
    """Per cent of the time."""
    ram_busy_fraction: float = 0.5
    """Share of the host's memory for all tasks together while the host is in use."""
    ram_idle_fraction: float = 0.9
    """Share of the host's memory for all tasks together while the host is idle."""
    leave_in_memory: bool = False
    maximum_upload_rate: float = 0.0
    """Bytes per second, 0 for no limit."""
    maximum_download_rate: float = 0.0
    """Bytes per second, 0 for no limit."""
    daily_transfer_limit: float = 0.0
    """MB, 0 for no limit."""


class Proxy(NamedTuple):
    """The client's HTTP and SOCKS proxies; a `…_host` of "" means no proxy of that kind."""

    http_host: str = ""
    http_port: int = 80
    http_user: str = ""
    http_password: str = ""
    socks_host: str = ""
    socks_port: int = 80
    socks_user: str = ""
    socks_password: str = ""
    exceptions: str = ""


# Not a dataclass: defining one of this size costs each process 2 ms.
class InitData(NamedTuple):
    """The contents of init_data.xml.

    Times are in seconds, memory and disk in bytes; directories are as the client wrote them.
    """

    major_version: int = 0
    minor_version: int = 0
    release: int = 0
    app_name: str = ""
    app_version: int = 0
    plan_class: str = ""
    project_directory: str = ""
    boinc_directory: str = ""
    work_unit_name: str = ""
    result_name: str = ""
    user_name: str = ""
    team_name: str = ""
    slot: int = 0
    client_pid: int = 0
    """0 if the client did not give it."""
    shared_memory_key: int = 0
    """-1 for boinc_mmap_file."""
    communication_name: str = ""
    cpu_time: float = 0.0
    elapsed_time: float = 0.0
    using_sandbox: bool = False
    vm_extensions_disabled: bool = False
    checkpoint_period: float = DEFAULT_CHECKPOINT_PERIOD
    fraction_done_start: float = 0.0
    fraction_done_end: float = 1.0
    gpu_type: str = ""
    gpu_device: int = -1
    processors: float = 0.0
    """Number of processors that the task may use, 0 if the client did not give it."""
    memory_bound: float = 0.0
    disk_bound: float = 0.0
    operations_bound: float = 0.0
    operations_estimate: float = 0.0
    deadline: float = 0.0
    no_priority_change: bool = False
    process_priority: int = -1
    host_memory: float = 0.0
    host_processors: int = 1
    preferences: Preferences = Preferences()
    proxy: Proxy = Proxy()
    project_preferences: str = ""
    app_files: tuple[str, ...] = ()
    raw: str = ""
    """The file's text."""

    @property
    def project_path(self) -> Path | None:
        """Return the project's directory; None if the client did not give it."""
        path = Path(self.project_directory)
        return path if path.is_absolute() else None


def read_init_data(slot: Path) -> InitData | None:
    """Read `slot`/init_data.xml; return None if the file does not exist.

    Raises InitDataError if it cannot be read, is too large, or has no <app_init_data>.
    """
    path = slot / FILE_NAME
    try:
        data = _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InitDataError(
            f"{FILE_NAME} cannot be read: {error.strerror}",
            hint="the BOINC client writes it; restart the task",
        ) from error
    if len(data) > LARGEST_FILE:
        raise InitDataError(f"{FILE_NAME} has more than {LARGEST_FILE} bytes")
    text = decoded(data)
    if "<app_init_data>" not in text:
        raise InitDataError(f"{FILE_NAME} has no <app_init_data>")
    return parse_init_data(text)


def _read(path: Path) -> bytes:
    # Opening it must not block, as a pipe that nobody writes to would.
    descriptor = open_descriptor(path, wait=False)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InitDataError(f"{FILE_NAME} is not a regular file")
        return file.read(LARGEST_FILE + 1)


def parse_init_data(text: str) -> InitData:
    """Parse any text; values that are missing or invalid get their defaults."""
    blocks: dict[str, str] = {}
    rest = text
    for name in _BLOCKS:  # their elements could be mistaken for the task's own
        rest, blocks[name] = _cut(rest, name)
    host = blocks["host_info"]
    return InitData(
        major_version=integer(rest, "major_version"),
        minor_version=integer(rest, "minor_version"),
        release=integer(rest, "release"),
        app_name=string(rest, "app_name"),
        app_version=integer(rest, "app_version"),
        plan_class=string(rest, "plan_class"),
        # The client writes directories unescaped, and everything else escaped.
        project_directory=element(rest, "project_dir") or "",
        boinc_directory=element(rest, "boinc_dir") or "",
        work_unit_name=string(rest, "wu_name"),
        result_name=string(rest, "result_name"),
        user_name=string(rest, "user_name"),
        team_name=string(rest, "team_name"),
        slot=integer(rest, "slot"),
        client_pid=max(integer(rest, "client_pid"), 0),
        shared_memory_key=integer(rest, "shm_key"),
        communication_name=string(rest, "comm_obj_name"),
        cpu_time=_amount(rest, "wu_cpu_time"),
        elapsed_time=_amount(rest, "starting_elapsed_time"),
        using_sandbox=boolean(rest, "using_sandbox"),
        vm_extensions_disabled=boolean(rest, "vm_extensions_disabled"),
        checkpoint_period=_amount(rest, "checkpoint_period") or DEFAULT_CHECKPOINT_PERIOD,
        fraction_done_start=number(rest, "fraction_done_start"),
        fraction_done_end=number(rest, "fraction_done_end", 1.0),
        gpu_type=string(rest, "gpu_type"),
        gpu_device=integer(rest, "gpu_device_num", -1),
        processors=_amount(rest, "ncpus"),
        memory_bound=_amount(rest, "rsc_memory_bound"),
        disk_bound=_amount(rest, "rsc_disk_bound"),
        operations_bound=_amount(rest, "rsc_fpops_bound"),
        operations_estimate=_amount(rest, "rsc_fpops_est"),
        deadline=_amount(rest, "computation_deadline"),
        no_priority_change=boolean(rest, "no_priority_change"),
        process_priority=integer(rest, "process_priority", -1),
        host_memory=_amount(host, "m_nbytes"),
        host_processors=max(integer(host, "p_ncpus", 1), 1),
        preferences=_preferences(blocks["global_preferences"]),
        proxy=_proxy(blocks["proxy_info"]),
        project_preferences=blocks["project_preferences"],
        app_files=_app_files(rest),
        raw=text,
    )


def _cut(text: str, name: str) -> tuple[str, str]:
    """Return `text` without its first element `name`, and that element's content."""
    before, opening, behind = text.partition(f"<{name}>")
    inside, closing, after = behind.partition(f"</{name}>")
    return (before + after, inside) if opening and closing else (text, "")


def _amount(text: str, name: str, default: float = 0.0) -> float:
    value = number(text, name, default)
    return value if value >= 0 else default


def _preferences(text: str) -> Preferences:
    return Preferences(
        cpu_usage_limit=min(_amount(text, "cpu_usage_limit") or 100.0, 100.0),
        ram_busy_fraction=_fraction(text, "ram_max_used_busy", 0.5),
        ram_idle_fraction=_fraction(text, "ram_max_used_idle", 0.9),
        leave_in_memory=boolean(text, "leave_apps_in_memory"),
        maximum_upload_rate=_amount(text, "max_bytes_sec_up"),
        maximum_download_rate=_amount(text, "max_bytes_sec_down"),
        daily_transfer_limit=_amount(text, "daily_xfer_limit_mb"),
    )


def _fraction(text: str, name: str, default: float) -> float:
    """Return a percentage as a fraction; older files of the client have fractions."""
    value = _amount(text, f"{name}_pct") / 100 or _amount(text, f"{name}_frac")
    return min(value, 1.0) or default


def _proxy(text: str) -> Proxy:
    has_http, has_socks = boolean(text, "use_http_proxy"), boolean(text, "use_socks_proxy")
    return Proxy(
        http_host=string(text, "http_server_name") if has_http else "",
        http_port=integer(text, "http_server_port", 80),
        http_user=string(text, "http_user_name"),
        http_password=string(text, "http_user_passwd"),
        socks_host=string(text, "socks_server_name") if has_socks else "",
        socks_port=integer(text, "socks_server_port", 80),
        socks_user=string(text, "socks5_user_name"),
        socks_password=string(text, "socks5_user_passwd"),
        exceptions=string(text, "no_proxy"),
    )


def _app_files(text: str) -> tuple[str, ...]:
    names: list[str] = []
    for part in text.split("<app_file>")[1 : _MOST_APP_FILES + 1]:
        name = element(f"<app_file>{part}", "app_file")
        if name:
            names.append(unescape(name))
    return tuple(names)
