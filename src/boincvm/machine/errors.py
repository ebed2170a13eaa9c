"""Why a machine cannot go on just now, though nothing is wrong with what it was to do."""

from boincvm.errors import BoincvmError, HostError
from boincvm.exit_codes import ExitCode


class NotEnoughRoomError(HostError):
    """The host has too little free memory or disk just now."""


class NoRoomForCheckpointError(HostError):
    """The checkpoint would not fit, so it was not begun."""


class SavedMachineError(BoincvmError):
    """A saved machine cannot be used; what it had done is to be done anew."""

    exit_code = ExitCode.HYPERVISOR_FAILED
