"""The states of a virtual machine: what becomes of requests in each, and what can be done.

This is the only place that defines it; everything else uses this module, or the `operations` of a
machine's description.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from typing import NamedTuple

from boincvm.errors import MachineStateError


class VmState(StrEnum):
    """A machine's state, named as in CERN's VM Controller of 2009, in lower case."""

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
    """The machine ended without being asked to; `why` says what happened."""
    STUCK = "stuck"
    """The machine runs, but its guest does not answer."""
    DISCARDING = "discarding"

    @property
    def meaning(self) -> "Meaning":
        return MEANINGS[self]

    @property
    def label(self) -> str:
        """Return the state's name for people."""
        return self.replace("_", " ")

    @property
    def is_off(self) -> bool:
        """Return True if no process runs for the machine."""
        return self.meaning.is_off


class Requests(Enum):
    """The fate of requests that the guest itself must answer: a program, a file, a ping."""

    ANSWERED = auto()
    HELD = auto()
    """It is answered after the state has ended, which happens by itself."""
    REFUSED = auto()
    """It is refused at once, with a hint about how it could be answered."""


class Meaning(NamedTuple):
    """The meaning of a state."""

    requests: Requests
    operations: frozenset[str] = frozenset()
    """The operations that are possible, beside those that need no machine."""
    remedy: str = ""
    """Advice when a request is refused; {vm} stands for the machine's id."""
    is_off: bool = False
    """No process runs for the machine."""


_ENDS = ("stop", "power_off", "reset")
_START = "start it: boincvm start {vm}"

MEANINGS: Mapping[VmState, Meaning] = {
    VmState.UNKNOWN: Meaning(Requests.ANSWERED),
    VmState.POWERED_OFF: Meaning(
        Requests.REFUSED, frozenset(("start", "remove")), _START, is_off=True
    ),
    VmState.STARTING: Meaning(Requests.HELD, frozenset(("power_off",))),
    VmState.RUNNING: Meaning(
        Requests.ANSWERED, frozenset(("pause", "save", "snapshot_take", *_ENDS))
    ),
    VmState.PAUSED: Meaning(
        Requests.REFUSED,
        frozenset(("resume", "start", "save", "snapshot_take", *_ENDS)),
        "resume it: boincvm resume {vm}",
    ),
    VmState.SAVING: Meaning(Requests.HELD, frozenset(("power_off",))),
    VmState.SAVED: Meaning(
        Requests.REFUSED, frozenset(("start", "discard", "remove")), _START, is_off=True
    ),
    VmState.RESTORING: Meaning(Requests.HELD, frozenset(("power_off",))),
    VmState.STOPPING: Meaning(
        Requests.REFUSED,
        frozenset(("power_off",)),
        "start it again when it has ended: boincvm start {vm}",
    ),
    VmState.ABORTED: Meaning(
        Requests.REFUSED,
        frozenset(("start", "remove")),
        "start it again: boincvm start {vm}; see also boincvm logs {vm}",
        is_off=True,
    ),
    VmState.STUCK: Meaning(Requests.REFUSED, frozenset(_ENDS), "reset it: boincvm reset {vm}"),
    VmState.DISCARDING: Meaning(Requests.HELD),
}


def refusal(vm: str, state: VmState, why: str = "") -> MachineStateError:
    """Return the error for a request that `vm` cannot answer in `state`; `why` it is in it."""
    reason = f": {why}" if why else ""
    return MachineStateError(
        f"the machine {vm} is {state.label}{reason}", hint=state.meaning.remedy.format(vm=vm)
    )
