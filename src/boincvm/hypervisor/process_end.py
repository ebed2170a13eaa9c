"""Why a machine ended, by how its hypervisor's process did."""

from boincvm.host.processes import exit_status
from boincvm.host.signals import ENDING_SIGNALS
from boincvm.hypervisor.contract import EndCause, MachineEnd


def end_by_signal(number: int, process: str) -> MachineEnd:
    """Return the end of a machine whose process a signal ended; `process` names that."""
    # Any other signal is the process's own fault, or that of what it was given.
    cause = EndCause.KILLED if number in ENDING_SIGNALS else EndCause.FAILED
    return MachineEnd(cause, f"signal {number} ended {process}")


def end_of_other(handle: int | None, process: str, limit: float = 0.0) -> MachineEnd:
    """Return the end of a machine whose process, which is no child of ours, ended unexpectedly.

    `handle`: what `open_process` returned. `limit`: see `exit_status`.
    """
    status = exit_status(handle, limit) if handle is not None else None
    if not status:
        return MachineEnd(EndCause.KILLED, f"{process} was killed, or it crashed")
    if status < 0:
        return end_by_signal(-status, process)
    return MachineEnd(EndCause.FAILED, f"{process} ended with {status}")
