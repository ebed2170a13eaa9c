"""The states of a virtual machine, and what each of them means: for requests, and what leads on.

This is the one place where that stands. Faces and pages ask here, or are told by `operations`.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum, auto
from typing import NamedTuple

from boincvm.errors import MachineStateError


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
    def meaning(self) -> "Meaning":
        return MEANINGS[self]

    @property
    def words(self) -> str:
        """Its name, for people."""
        return self.replace("_", " ")

    @property
    def is_off(self) -> bool:
        """Whether no process runs for it."""
        return self.meaning.is_off


class Requests(Enum):
    """What becomes of a request that the guest itself has to answer: a program, a file, a ping."""

    ANSWERED = auto()
    HELD = auto()
    """It is answered when the state, which passes by itself, is over."""
    REFUSED = auto()
    """At once, with what leads to a state in which it would be answered."""


class Meaning(NamedTuple):
    """What a state means."""

    requests: Requests
    operations: frozenset[str] = frozenset()
    """Operations that make sense in it, beside those that need no machine."""
    remedy: str = ""
    """What a person can do whose request is refused; {vm} stands for the machine's id."""
    is_off: bool = False
    """Whether no process runs for the machine."""


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
        "let it go on: boincvm resume {vm}",
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
        "start it again: boincvm start {vm}; boincvm logs {vm} says more",
        is_off=True,
    ),
    VmState.STUCK: Meaning(
        Requests.REFUSED, frozenset(_ENDS), "end it and boot it again: boincvm reset {vm}"
    ),
    VmState.DISCARDING: Meaning(Requests.HELD),
}


def refusal(vm: str, state: VmState, why: str = "") -> MachineStateError:
    """What is said of a request that `vm` cannot answer in this state. `why`: it is in it."""
    reason = f": {why}" if why else ""
    return MachineStateError(
        f"the machine {vm} is {state.words}{reason}", hint=state.meaning.remedy.format(vm=vm)
    )
