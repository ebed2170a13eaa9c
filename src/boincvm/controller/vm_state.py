"""The states of a virtual machine, as everybody is told them."""

from enum import StrEnum


class VmState(StrEnum):
    """The names are those of CERN's VM Controller of 2009, in small letters."""

    UNKNOWN = "unknown"
    POWERED_OFF = "powered_off"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SAVING = "saving"
    SAVED = "saved"
    RESTORING = "restoring"
    STOPPING = "stopping"
    ABORTED = "aborted"
    """It ended and nobody had asked for it; `why` says what happened."""
    STUCK = "stuck"
    """It runs, and its guest does not answer."""
    DISCARDING = "discarding"

    @property
    def is_off(self) -> bool:
        """Whether no process runs for it."""
        return self in (VmState.POWERED_OFF, VmState.SAVED, VmState.ABORTED)
