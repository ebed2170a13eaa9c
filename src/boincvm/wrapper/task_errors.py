"""Why a task under the client cannot go on just now, though nothing is wrong with the job."""

from boincvm.errors import BoincvmError, HostError
from boincvm.exit_codes import ExitCode


class NotEnoughRoomError(HostError):
    """The host has too little free memory or disk just now."""


class NoRoomForCheckpointError(HostError):
    """It would not fit, so it was not begun."""


class SavedMachineError(BoincvmError):
    """A saved machine cannot be used; what it had done is to be done anew."""

    exit_code = ExitCode.HYPERVISOR_FAILED


class TemporaryExitError(BoincvmError):
    """The program wants to be started again after `delay` seconds, from its beginning."""

    def __init__(self, delay: float, reason: str, *, notice: bool) -> None:
        super().__init__(reason or "the program asked for it")
        self.delay = delay
        self.notice = notice
