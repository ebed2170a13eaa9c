"""Errors that stop a machine for now although its task is fine."""

from boincvm.errors import BoincvmError, HostError
from boincvm.exit_codes import ExitCode


class NotEnoughRoomError(HostError):
    """The host has too little free memory or disk at the moment."""


class NoRoomForCheckpointError(HostError):
    """The checkpoint would not fit, so it was not started."""


class SavedMachineError(BoincvmError):
    """A saved machine cannot be used; its work must be done again."""

    exit_code = ExitCode.HYPERVISOR_FAILED
