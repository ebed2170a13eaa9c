"""What a job.xml says: BOINC's wrapper's, VMWrapper's, and ours (docs/job-xml.md).

Nothing here is expanded or looked up yet: macros, soft links and the wrapper's own arguments
come in when a task starts (`macros.py`, `command_line.py`, `wrapper_arguments.py`).
"""

from enum import Enum
from typing import NamedTuple


class CpuTimeSource(Enum):
    """Whose processor time is reported to BOINC for a task in a machine.

    `GUEST`: what the guest's kernel counted for the program. `HOST`: what the hypervisor's
    process used, everything in the machine included. `WALL`: how long the task ran.
    """

    GUEST = "guest"
    HOST = "host"
    WALL = "wall"


class MachineUse(NamedTuple):
    """The virtual machine that a task runs in, and what goes in and out of it.

    `name`, `image`, `memory`, `cpus`, `network` and `disk` describe the machine: they are the
    same in every task of one job with the same `name`. The rest is the task's own. `memory`
    and `disk` in bytes; None is the image's own or the wrapper's choice.

    `application_path` is where the application lies in the guest; None: where it is copied
    to, or wherever the guest's PATH finds it. `copy_application`, `copy_in`, `copy_out` and
    `packages` name files of the slot, relative and without `..`; `packages` (.deb files or
    archives) are installed before the task and removed after it.
    """

    name: str
    image: str = "base"
    application_path: str | None = None
    copy_application: bool = False
    copy_in: tuple[str, ...] = ()
    copy_out: tuple[str, ...] = ()
    memory: int | None = None
    cpus: int | None = None
    network: bool = False
    disk: int | None = None
    packages: tuple[str, ...] = ()


class TaskDescription(NamedTuple):
    """One program, on the host or (`machine`) in a virtual machine.

    `application` is a file of the slot, or begins with `$PROJECT_DIR`; in a machine it may
    be "" if there is a `MachineUse.application_path`. `command_line`, `exec_dir` and the
    values of `environment` hold macros. The file names are the slot's own, relative and
    without `..`, None where there is none; for a task in a machine `checkpoint_filename` is
    the snapshot's name.

    `weight` is at least 0, and the weights of a job's tasks never add up to 0. `time_limit` is
    in seconds, None for no limit. `priority` goes from 1, the lowest, to 5; another number leaves
    the nice value as it is; None: not said, which is 1.
    `append_command_line`: what the wrapper was given for its children is appended. `line` is
    where in the file the task begins.
    """

    application: str
    line: int
    command_line: str = ""
    exec_dir: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    stdin_filename: str | None = None
    stdout_filename: str | None = None
    stderr_filename: str | None = None
    checkpoint_filename: str | None = None
    fraction_done_filename: str | None = None
    weight: float = 1.0
    is_daemon: bool = False
    multi_process: bool = False
    append_command_line: bool = False
    time_limit: float | None = None
    priority: int | None = None
    forward_slashes: bool = False
    machine: MachineUse | None = None


class ZipOutput(NamedTuple):
    """At the end, files of the slot go into the archive `zip_name`.

    Those go whose name one of `patterns` (regular expressions, searched for anywhere in the
    name) matches and which were not there when the job first started.
    """

    zip_name: str
    patterns: tuple[str, ...] = ()


class BoincJob(NamedTuple):
    """`tasks` run in order. `daemons` start before them and are ended after them.

    `unzip_input` are archives that are unpacked, and then deleted, when the job first starts.
    `unzip_tasks` run on the host, in order, before everything else. `machine_managers` are
    programs of the host that are up as long as tasks with a machine remain. `graphics`: the
    graphics status file is kept up to date. `cpu_time_scale`: the processor time reported is
    what was counted times this.

    `ignored` says, one line each, what in the file has no effect, as BOINC's wrapper writes
    it to its log; not every such thing if there are very many.
    """

    tasks: tuple[TaskDescription, ...]
    daemons: tuple[TaskDescription, ...] = ()
    unzip_input: tuple[str, ...] = ()
    zip_output: ZipOutput | None = None
    graphics: bool = False
    unzip_tasks: tuple[TaskDescription, ...] = ()
    machine_managers: tuple[TaskDescription, ...] = ()
    cpu_time: CpuTimeSource = CpuTimeSource.GUEST
    cpu_time_scale: float = 1.0
    ignored: tuple[str, ...] = ()

    @property
    def is_for_vmwrapper(self) -> bool:
        """Whether VMWrapper's rules hold: only it knows what this job has.

        Its rule for command lines is that of `macros.words_with_physical_names`, for tasks on
        the host.
        """
        uses_machines = any(task.machine is not None for task in self.tasks)
        return uses_machines or bool(self.unzip_tasks or self.machine_managers)
