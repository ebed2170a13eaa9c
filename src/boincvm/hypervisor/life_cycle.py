"""What our drivers check before a machine starts that starts once, and before one is saved."""

from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import MachineState


def check_can_start(state: MachineState, *, has_ended: bool) -> None:
    """Raise HypervisorError if a machine in that state cannot start.

    `has_ended`: its last run is over, which the state may not show yet.
    """
    if state.is_active:
        raise HypervisorError("the machine is already running, and its link is in use")
    if has_ended or state in (MachineState.STOPPED, MachineState.DESTROYED):
        raise HypervisorError("the machine has ended, so it cannot start again")


def check_top_layer(hypervisor: str, *, is_known: bool) -> None:
    """Raise HypervisorError unless the layer that the guest writes to is the one that we know.

    It is not if `hypervisor` has changed the disk after we had given up waiting for that.
    """
    if not is_known:
        raise HypervisorError(
            f"{hypervisor} has changed the machine's disk after boincvm had given up waiting, so"
            " the machine can no longer be saved"
        )
