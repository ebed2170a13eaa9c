"""What the client is told at the end: finished, to be tried again later, or nothing."""

from typing import NamedTuple

from boincvm.boinc import BoincExit
from boincvm.errors import (
    BoincvmError,
    GuestError,
    HostDiskFullError,
    HostError,
    HypervisorError,
    HypervisorMissingError,
    ImageDamagedError,
    ImageMissingError,
    InputFileError,
    JobFileError,
    LimitError,
    PreferencesError,
    UnsupportedHostError,
    UsageError,
    host_error,
)
from boincvm.machine.errors import NotEnoughRoomError, SavedMachineError

MOST_FAILURES = 5
"""How many successive failures of a machine make the task itself fail."""
_FIRST_DELAY, _LONGEST_DELAY = 60.0, 3600.0


class Finished(NamedTuple):
    """The task is over."""

    status: int
    """0 is success, any other value one of BOINC's codes."""
    message: str = ""
    keeps_machines: bool = False


class Postponed(NamedTuple):
    """The client starts the task again later."""

    delay: float
    """Seconds until then."""
    reason: str
    notice: bool
    """Whether the volunteer is notified."""
    keeps_machines: bool = True


class Left(NamedTuple):
    """The wrapper was told to end: the client starts the task again some day.

    Neither of the client's files is written.
    """

    status: int
    """The process's exit status."""
    keeps_machines: bool = True


End = Finished | Postponed | Left


def end_of(error: BoincvmError, failures: int) -> End:
    """Return how `error` ends the task; `failures` counts successive ones, including this one."""
    text = f"{error.message}; {error.hint}" if error.hint else error.message
    match error:
        case HypervisorMissingError() | PreferencesError():
            return Postponed(3600, text, notice=True)
        case HostDiskFullError():
            return Postponed(1800, text, notice=True)
        case SavedMachineError():
            return Postponed(1, text, notice=False)
        case NotEnoughRoomError():
            return Postponed(600, text, notice=False)
        case ImageMissingError() | ImageDamagedError():
            return Postponed(3600, text, notice=True)
        case UnsupportedHostError():  # no later try can help here, but another host can
            return Finished(BoincExit.INIT_FAILURE, text)
        case JobFileError() | UsageError() | InputFileError():
            return Finished(BoincExit.INIT_FAILURE, text)
        case LimitError():
            return Finished(error.exit_code, text)
        case GuestError() | HypervisorError() | HostError() if failures < MOST_FAILURES:
            delay = min(_FIRST_DELAY * 2 ** (failures - 1), _LONGEST_DELAY)
            return Postponed(delay, text, notice=False)
        case GuestError() | HypervisorError() | HostError():
            return Finished(BoincExit.SUB_TASK_FAILURE, f"{text} ({failures} times)")
    return Finished(BoincExit.CHILD_FAILED, text)


def error_of_system(what: str, error: OSError) -> BoincvmError:
    """Return the error to report when `what` failed: a full disk, or another fault of the host."""
    full = HostDiskFullError(f"the host's disk is full: {what}", hint="free some space")
    return host_error(what, error, full=full)
