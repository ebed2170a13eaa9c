"""The model of a job: what to do, in which machines, with which files, within which limits.

Every reader of a job format (toml.py, job_xml.py, run_arguments.py) produces these values, with
all oddities of its format expanded, and nothing else is run. Settings that matter only to a BOINC
client are in boinc_settings.py.

They are named tuples because a dataclass takes ten times as long to define (0.7 ms against 0.07),
which every start of the wrapper would pay.
"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

MIB = 1 << 20
GIB = 1 << 30

GUEST_DIRECTORY = PurePosixPath("/work")
"""The job's directory in a guest: inputs are put here, and programs start here."""

_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


class InputFile(NamedTuple):
    """A file or tree of the host to copy into a machine."""

    source: Path
    """On the host; relative to `Job.directory`, or beneath `$PROJECT_DIR` under BOINC."""
    destination: PurePosixPath
    """Relative to the job's directory in the guest."""


class OutputFile(NamedTuple):
    """A file or tree of the guest to bring back."""

    source: PurePosixPath
    """Relative to the job's directory in the guest."""
    destination: PurePosixPath
    """On the host; relative to `Job.directory`, and never outside it."""
    is_pattern: bool = False
    """Whether `source` is a pattern of the shell; `destination` is the directory for what matches,
    beneath which a match keeps its path, or its last name if `keeps_path` is not set."""
    keeps_path: bool = True
    replaces: bool = False
    """Whether a directory that exists at `destination` and is not empty is replaced."""


class HostTask(NamedTuple):
    """A program that runs on the host.

    File names are names within the job: relative to `Job.directory`, without `..`. Under a BOINC
    client they are soft links, which are resolved when the task starts, because an earlier task may
    have written them.
    """

    application: str
    """A file of the job, a path that begins with `$PROJECT_DIR`, or an absolute path."""
    command_line: str = ""
    """Split as BOINC splits it, after each `boinc_resolve(NAME)` has been replaced by the path of
    the file NAME."""
    arguments: tuple[str, ...] = ()
    """Appended to the words of `command_line`; names in them are replaced likewise."""
    directory: str | None = None
    """Where the program starts; None: `Job.directory`."""
    environment: Mapping[str, str] = _NO_ENVIRONMENT
    """Added to the wrapper's environment."""
    stdin: Path | None = None
    """None: no input."""
    stdout: Path | None = None
    """Appended to, like `stderr`. None: the wrapper's own."""
    stderr: Path | None = None
    checkpoint: Path | None = None
    """A file that changes whenever the program has made a checkpoint of itself."""
    fraction_done: Path | None = None
    """A file; the last number in it is the completed fraction of the task."""
    multi_process: bool = False
    """Whether its child processes are suspended too, even if it is stopped by SIGTSTP."""
    priority: int | None = None
    """From 1, the lowest, to 5; another number leaves the nice value as it is; None is 1."""
    time_limit: float | None = None
    """Seconds of running; None: no limit."""
    weight: float = 1.0
    """The task's share of the job's work, at least 0; a job's weights never add up to 0."""
    forward_slashes: bool = False
    """Whether paths in `command_line` use `/` on Windows, too."""

    @property
    def name(self) -> str:
        """Return its name for messages."""
        return self.application


class MachineTask(NamedTuple):
    """A program that runs in a virtual machine, with its inputs and outputs.

    The host's files are relative to `Job.directory`.
    """

    argv: tuple[str, ...]
    """The program and its arguments; a program without a `/` is looked up in the guest's PATH."""
    environment: Mapping[str, str] = _NO_ENVIRONMENT
    """Added to the environment that every program in a guest gets."""
    directory: PurePosixPath | None = None
    """Where in the guest it starts, relative to the job's directory there; None: that directory.
    A container's own command may start anywhere: then it is absolute."""
    stdin: Path | None = None
    """A file of the host; None: the input of the process that runs the job, if it has one."""
    stdout: Path | None = None
    """A file of the host, like `stderr`; None: the output of the process that runs the job."""
    stderr: Path | None = None
    machine: str = ""
    """The name in `Job.machines` of the machine that it runs in."""
    inputs: tuple[InputFile, ...] = ()
    """Sent before the task starts."""
    outputs: tuple[OutputFile, ...] = ()
    """Brought back when the task has ended."""
    packages: tuple[Path, ...] = ()
    """Files of the host: `.deb` files or archives, installed in the guest before the task and
    removed after it."""
    fraction_done: PurePosixPath | None = None
    """A file in the guest, relative to the directory that the program starts in; the last number in
    it is the completed fraction of the task."""
    time_limit: float | None = None
    """Seconds of running; None: no limit."""
    weight: float = 1.0
    """The task's share of the job's work, at least 0; a job's weights never add up to 0."""

    @property
    def name(self) -> str:
        """Return its name for messages."""
        path = PurePosixPath(self.argv[0])
        return str(path.relative_to(GUEST_DIRECTORY)) if _is_beneath_work(path) else self.argv[0]


def _is_beneath_work(path: PurePosixPath) -> bool:
    return path != GUEST_DIRECTORY and path.is_relative_to(GUEST_DIRECTORY)


class PortForward(NamedTuple):
    """A TCP port of the host's address 127.0.0.1 that leads to a port of a guest."""

    host: int
    guest: int


Task = HostTask | MachineTask
"""The kinds of tasks. The third will be an appliance: a whole machine as the task. Code that
distinguishes the kinds does so in a way that mypy checks."""

AnyTask = TypeVar("AnyTask", bound=Task, covariant=True)


class MachineShape(NamedTuple):
    """The virtual machine that a job asks for."""

    image: str = "base"
    memory: int = 512 * MIB
    """Bytes."""
    cpus: int = 1
    disk: int | None = None
    """Bytes; None: the image's own size."""
    network: bool = False


class CheckpointNeed(Enum):
    """Whether a machine must be able to be saved, so that its programs go on from there."""

    REQUIRED = "required"
    """It runs only where it can be saved."""
    WANTED = "wanted"
    """It runs anywhere, best where it can be saved."""
    NONE = "none"
    """Its programs lose nothing worth keeping, or keep it themselves: it runs where it is
    fastest."""


class DriverRequest(NamedTuple):
    """What a job says about the driver of a machine; a volunteer may overrule it."""

    driver: str | None = None
    """The driver's name; None: any that can do what the job needs."""
    checkpoint: CheckpointNeed = CheckpointNeed.WANTED


NO_REQUEST = DriverRequest()
_NO_REQUESTS: Mapping[str, DriverRequest] = MappingProxyType({})
_ONE_MACHINE: Mapping[str, MachineShape] = MappingProxyType({"": MachineShape()})


class Limits(NamedTuple):
    """How long a machine may take for each step, in seconds."""

    boot: float = 120.0
    """From its start to its agent's first answer."""
    silence: float = 60.0
    """How long a running guest may say nothing before it counts as hung."""
    stop: float = 10.0
    """How long a program may take to end after a signal or its time limit."""


class Job(NamedTuple, Generic[AnyTask]):
    """A complete job. The tasks run in order; the first that fails ends the job.

    A `Job[MachineTask]` runs nothing on the host.
    """

    tasks: tuple[AnyTask, ...]
    directory: Path
    """The host directory that the job's relative paths start from."""
    machines: Mapping[str, MachineShape] = _ONE_MACHINE
    """By name, in the order in which tasks need them; a single machine's name is ""."""
    inputs: tuple[InputFile, ...] = ()
    """Sent before the first task starts."""
    outputs: tuple[OutputFile, ...] = ()
    """Brought back when the last task that ran has ended."""
    limits: Limits = Limits()
    name: str = ""
    """The machine's host name is derived from it; empty: the image's own host name."""
    forwards: tuple[PortForward, ...] = ()
    """Ports of the host that lead into its only machine, which then has a network."""
    remote_desktop: bool = False
    """Whether its only machine's screen can be seen by a remote desktop's client."""
    gpu: str | None = None
    """The PCI address of a graphics card of the host that its only machine gets."""
    driver_requests: Mapping[str, DriverRequest] = _NO_REQUESTS
    """What it asks of drivers, by the machine's name, where it asks for something. That is no part
    of the shape: a checkpoint stays usable when it changes."""

    @property
    def machine(self) -> MachineShape:
        """Return the job's only machine. Raises ValueError if it does not have exactly one."""
        (machine,) = self.machines.values()
        return machine

    def driver_request(self, machine: str = "") -> DriverRequest:
        """Return what the job asks of the driver of a machine."""
        return self.driver_requests.get(machine, NO_REQUEST)
