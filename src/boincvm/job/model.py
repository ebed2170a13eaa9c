"""The job: what is to be done, in which machine, with which files, within which limits.

Every reader of a job format (job.toml now; job.xml, vbox_job.xml later) makes these values
and the wrapper runs nothing else. They are named tuples because a dataclass takes ten times as
long to define (0.7 ms against 0.07), which every start of the wrapper would pay.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

MIB = 1 << 20
GIB = 1 << 30

_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


class Task(NamedTuple):
    """One command in the guest. `argv[0]` is looked up in the guest's PATH.

    `directory` is the working directory in the guest; None is the job's own directory, where
    the inputs lie. `stdin`, `stdout`, `stderr` are files of the host; None means those of
    the process that runs the job.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = _NO_ENVIRONMENT
    directory: PurePosixPath | None = None
    stdin: Path | None = None
    stdout: Path | None = None
    stderr: Path | None = None


class MachineShape(NamedTuple):
    """The virtual machine's size. `memory` and `disk` in bytes; `disk` None: the image's own."""

    image: str = "base"
    memory: int = 512 * MIB
    cpus: int = 1
    disk: int | None = None
    network: bool = False


class InputFile(NamedTuple):
    """A file or tree of the host, and where it goes beneath the job's directory in the guest."""

    source: Path
    destination: PurePosixPath


class OutputFile(NamedTuple):
    """A file or tree beneath the job's directory in the guest, and where it goes on the host.

    `destination` is relative to `Job.directory` and never leads out of it.
    """

    source: PurePosixPath
    destination: PurePosixPath


class Limits(NamedTuple):
    """All in seconds. `run`: a task's wall time, None for no limit. `boot`: from start to the
    agent's first word. `silence`: how long a running guest may say nothing at all before it
    counts as hung. `stop`: how long a program has to end after it was asked to, by a signal or at
    its time limit.
    """

    run: float | None = None
    boot: float = 120.0
    silence: float = 60.0
    stop: float = 10.0


class Job(NamedTuple):
    """Tasks run in order; the first that fails ends the job.

    `directory` is the host directory that relative paths of the job start from. `name`: of which
    the machine's host name is made; empty: the image's own.
    """

    tasks: tuple[Task, ...]
    directory: Path
    machine: MachineShape = MachineShape()
    inputs: tuple[InputFile, ...] = ()
    outputs: tuple[OutputFile, ...] = ()
    limits: Limits = Limits()
    name: str = ""
