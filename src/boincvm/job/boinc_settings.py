"""What a job asks of a BOINC client's wrapper besides its tasks (docs/job-xml.md)."""

from enum import Enum
from typing import NamedTuple

from boincvm.job.model import HostTask


class CpuTimeSource(Enum):
    """Whose processor time is reported to BOINC for a task in a machine."""

    GUEST = "guest"
    """What the guest's kernel counted for the program."""
    HOST = "host"
    """What the hypervisor's process used, including everything else in the machine."""
    WALL = "wall"
    """How long the task ran."""


class ZipOutput(NamedTuple):
    """The archive that files of the slot are packed into at the end of the job."""

    zip_name: str
    patterns: tuple[str, ...] = ()
    """Regular expressions, searched for anywhere in a file's name. A file is packed if one of them
    matches and it did not exist when the job first started."""


class BoincSettings(NamedTuple):
    """A job's settings that mean something only under a BOINC client."""

    daemons: tuple[HostTask, ...] = ()
    """Started before the tasks and ended after them."""
    unzip_tasks: tuple[HostTask, ...] = ()
    """Run in order before everything else, when the job first starts."""
    machine_managers: tuple[HostTask, ...] = ()
    """Run for as long as tasks in a machine remain."""
    unzip_input: tuple[str, ...] = ()
    """Archives that are unpacked and then deleted when the job first starts."""
    zip_output: ZipOutput | None = None
    graphics: bool = False
    """Whether the graphics status file is kept up to date."""
    cpu_time: CpuTimeSource = CpuTimeSource.GUEST
    cpu_time_scale: float = 1.0
    """The factor by which counted processor time is multiplied before it is reported."""
    is_for_vmwrapper: bool = False
    """Whether VMWrapper's rules apply, because the job has elements that only VMWrapper knows:
    words of a host task's command line that begin with `./` are file names."""
    ignored: tuple[str, ...] = ()
    """Parts of the file that have no effect, one line each, for the log; the list is capped."""
