"""What a job asks of a BOINC client's wrapper, beside its tasks (docs/job-xml.md)."""

from enum import Enum
from typing import NamedTuple

from boincvm.job.model import HostTask


class CpuTimeSource(Enum):
    """Whose processor time is reported to BOINC for a task in a machine.

    `GUEST`: what the guest's kernel counted for the program. `HOST`: what the hypervisor's
    process used, everything in the machine included. `WALL`: how long the task ran.
    """

    GUEST = "guest"
    HOST = "host"
    WALL = "wall"


class ZipOutput(NamedTuple):
    """The archive that files of the slot go into at the end of the job."""

    zip_name: str
    patterns: tuple[str, ...] = ()
    """Regular expressions, searched for anywhere in a file's name. Those files go in that one of
    them matches and that were not there when the job first started."""


class BoincSettings(NamedTuple):
    """A job's settings that mean something only under a BOINC client."""

    daemons: tuple[HostTask, ...] = ()
    """Start before the tasks and are ended after them."""
    unzip_tasks: tuple[HostTask, ...] = ()
    """Run in order before everything else, when the job first starts."""
    machine_managers: tuple[HostTask, ...] = ()
    """Are up for as long as tasks in a machine remain."""
    unzip_input: tuple[str, ...] = ()
    """Archives that are unpacked, and then deleted, when the job first starts."""
    zip_output: ZipOutput | None = None
    graphics: bool = False
    """Whether the graphics status file is kept up to date."""
    cpu_time: CpuTimeSource = CpuTimeSource.GUEST
    cpu_time_scale: float = 1.0
    """The processor time reported is what was counted times this."""
    is_for_vmwrapper: bool = False
    """Whether VMWrapper's rules hold, because only it knows what this job has: words of a host
    task's command line that begin with `./` are names of files."""
    ignored: tuple[str, ...] = ()
    """What in the file has no effect, one line each, for the log; not every such thing if there
    are very many."""
