"""The job: what is to be done, in which machines, with which files, within which limits.

Every reader of a job format (toml.py, job_xml.py, cli/job_arguments.py) makes these values, with
all oddities of its format expanded, and nothing else is run. What matters to a BOINC client alone
stands beside them, in boinc_settings.py.

They are named tuples because a dataclass takes ten times as long to define (0.7 ms against
0.07), which every start of the wrapper would pay.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

MIB = 1 << 20
GIB = 1 << 30

GUEST_DIRECTORY = PurePosixPath("/work")
"""The job's directory in a guest: the files that go in lie here, and programs start here."""

_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


class InputFile(NamedTuple):
    """A file or tree of the host that goes into a machine."""

    source: Path
    """On the host; relative to `Job.directory`, or beneath `$PROJECT_DIR` under BOINC."""
    destination: PurePosixPath
    """Where it goes beneath the job's directory in the guest."""


class OutputFile(NamedTuple):
    """A file or tree of the guest that is brought back."""

    source: PurePosixPath
    """Beneath the job's directory in the guest."""
    destination: PurePosixPath
    """On the host; relative to `Job.directory`, and never out of it."""


class HostTask(NamedTuple):
    """A program that runs on the host.

    File names are names of the job: relative to `Job.directory`, without `..`. What stands in
    their place under a BOINC client, a soft link, is looked up when the task starts, because an
    earlier task may have written it.
    """

    application: str
    """A file of the job, or a path that begins with `$PROJECT_DIR`, or an absolute path."""
    command_line: str = ""
    """Split as BOINC splits it once each `boinc_resolve(NAME)` in it has been replaced by the
    path of the file that NAME stands for."""
    arguments: tuple[str, ...] = ()
    """Come after the words of `command_line`; names in them are replaced likewise."""
    directory: str | None = None
    """Where the program starts; None: in `Job.directory`."""
    environment: Mapping[str, str] = _NO_ENVIRONMENT
    """Comes on top of the environment that the wrapper has."""
    stdin: Path | None = None
    """None: there is no input."""
    stdout: Path | None = None
    """Appended to, as is `stderr`. None: the wrapper's own."""
    stderr: Path | None = None
    checkpoint: Path | None = None
    """Changes whenever the program has made a checkpoint of itself."""
    fraction_done: Path | None = None
    """The last number in it is the fraction of the task that is done."""
    multi_process: bool = False
    """Whether its child processes are suspended with it, even if it is told by SIGTSTP."""
    priority: int | None = None
    """From 1, the lowest, to 5; another number leaves the nice value as it is; None is 1."""
    time_limit: float | None = None
    """Seconds of running; None: no limit."""
    weight: float = 1.0
    """The task's share of the job's work, at least 0; a job's weights never add up to 0."""
    forward_slashes: bool = False
    """Whether paths in `command_line` have `/` on Windows, too."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.application


class MachineTask(NamedTuple):
    """A program that runs in a virtual machine, and what goes in and comes out for it.

    The host's files are relative to `Job.directory`.
    """

    argv: tuple[str, ...]
    """The program first; without a `/` it is looked up in the guest's PATH."""
    environment: Mapping[str, str] = _NO_ENVIRONMENT
    """Comes on top of what every program of a guest gets."""
    directory: PurePosixPath | None = None
    """Where in the guest it starts, relative to the job's directory there; None: in that."""
    stdin: Path | None = None
    """A file of the host; None: the input of the process that runs the job, if it has one."""
    stdout: Path | None = None
    """A file of the host, as `stderr`; None: the output of the process that runs the job."""
    stderr: Path | None = None
    machine: str = ""
    """The name in `Job.machines` of the machine that it runs in."""
    inputs: tuple[InputFile, ...] = ()
    """Go in before the task starts."""
    outputs: tuple[OutputFile, ...] = ()
    """Are brought back when the task has ended."""
    packages: tuple[Path, ...] = ()
    """Files of the host: `.deb` files or archives, installed in the guest before the task and
    removed after it."""
    fraction_done: PurePosixPath | None = None
    """A file in the guest, beneath the directory that the program starts in; the last number in
    it is the fraction of the task that is done."""
    time_limit: float | None = None
    """Seconds of running; None: no limit."""
    weight: float = 1.0
    """The task's share of the job's work, at least 0; a job's weights never add up to 0."""

    @property
    def name(self) -> str:
        """What messages call it."""
        path = PurePosixPath(self.argv[0])
        return str(path.relative_to(GUEST_DIRECTORY)) if _is_beneath_work(path) else self.argv[0]


def _is_beneath_work(path: PurePosixPath) -> bool:
    return path != GUEST_DIRECTORY and path.is_relative_to(GUEST_DIRECTORY)


Task = HostTask | MachineTask
"""The kinds of tasks. The third will be a whole machine as the task, an appliance: each place
that tells one kind from another does so in a way that mypy checks."""

AnyTask = TypeVar("AnyTask", bound=Task, covariant=True)


class MachineShape(NamedTuple):
    """The virtual machine that a job asks for."""

    image: str = "base"
    memory: int = 512 * MIB
    """Bytes."""
    cpus: int = 1
    disk: int | None = None
    """Bytes; None: as many as the image has."""
    network: bool = False


_ONE_MACHINE: Mapping[str, MachineShape] = MappingProxyType({"": MachineShape()})


class Limits(NamedTuple):
    """How long a machine may take for what it does; all in seconds."""

    boot: float = 120.0
    """From its start to its agent's first answer."""
    silence: float = 60.0
    """So long a running guest may say nothing at all before it counts as hung."""
    stop: float = 10.0
    """So long a program has to end after it was asked to, by a signal or at its time limit."""


class Job(NamedTuple, Generic[AnyTask]):
    """What is to be done. The tasks run in order; the first that fails ends the job.

    `Job[MachineTask]` has nothing to run on the host.
    """

    tasks: tuple[AnyTask, ...]
    directory: Path
    """The host's directory that the job's relative paths start from."""
    machines: Mapping[str, MachineShape] = _ONE_MACHINE
    """By name, in the order in which tasks need them; the name is "" where there is but one."""
    inputs: tuple[InputFile, ...] = ()
    """Go in before the first task starts."""
    outputs: tuple[OutputFile, ...] = ()
    """Are brought back when the last task has ended, whichever it was."""
    limits: Limits = Limits()
    name: str = ""
    """The machine's host name is made of it; empty: the image's own host name."""

    @property
    def machine(self) -> MachineShape:
        """The machine of a job that has but one; ValueError for any other job."""
        (machine,) = self.machines.values()
        return machine
