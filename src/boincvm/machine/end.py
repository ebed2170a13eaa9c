"""Maps the reason why a machine ended to an error, and so to an exit code.

This is the only place that does so: `run`, the wrapper and the controller all use it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from boincvm.errors import (
    BoincvmError,
    GuestDiedError,
    GuestError,
    GuestHungError,
    GuestNeverBootedError,
    GuestPanickedError,
    GuestPoweredOffError,
    GuestProtocolError,
    HostDiskFullError,
    HypervisorError,
    HypervisorKilledError,
)
from boincvm.hypervisor.contract import EndCause, MachineEnd


class EndMeaning(NamedTuple):
    """The error, message and hint for one cause."""

    error: type[BoincvmError]
    """Raised for the machine's user; its class has the exit code."""
    message: str
    """For people; {detail} is replaced by the end's own detail."""
    hint: str = ""
    """What to do, if the end itself has no hint."""
    is_orderly: bool = False
    """Whether the machine counts as powered off rather than broken."""


MEANINGS: Mapping[EndCause, EndMeaning] = {
    EndCause.ASKED: EndMeaning(GuestDiedError, "the machine has ended", is_orderly=True),
    EndCause.POWERED_OFF: EndMeaning(
        GuestPoweredOffError, "the guest turned itself off or rebooted", is_orderly=True
    ),
    EndCause.PANICKED: EndMeaning(GuestPanickedError, "the guest's kernel panicked: {detail}"),
    EndCause.KILLED: EndMeaning(
        HypervisorKilledError,
        "the virtual machine was killed from outside: {detail}",
        "the host may have run out of memory: see its system log",
    ),
    EndCause.FAILED: EndMeaning(HypervisorError, "the hypervisor failed: {detail}"),
    EndCause.HOST_DISK_FULL: EndMeaning(
        HostDiskFullError,
        "the host's disk is full, so the machine was stopped",
        "free some space and run again",
    ),
    EndCause.NEVER_BOOTED: EndMeaning(GuestNeverBootedError, "{detail}"),
    EndCause.HUNG: EndMeaning(GuestHungError, "{detail}"),
    EndCause.LINK_LOST: EndMeaning(GuestDiedError, "{detail}"),
    EndCause.PROTOCOL_BROKEN: EndMeaning(GuestProtocolError, "{detail}"),
}


def end_error(end: MachineEnd) -> BoincvmError:
    """Return the error for the user of a machine that ended this way."""
    meaning = MEANINGS[end.cause]
    message = meaning.message.format(detail=end.detail)
    return meaning.error(message, hint=end.hint or meaning.hint)


def is_orderly(end: MachineEnd) -> bool:
    """Tell whether a machine that ended this way is powered off rather than broken."""
    return MEANINGS[end.cause].is_orderly


def end_of_guest(end: MachineEnd, *, has_answered: bool) -> MachineEnd:
    """Return the end that the driver reports, corrected by what the link knows.

    `has_answered`: whether the guest's agent has ever answered. If it has not, a guest that powered
    off or panicked has never booted.
    """
    is_guests = end.cause in (EndCause.POWERED_OFF, EndCause.PANICKED)
    if has_answered or not is_guests:
        return end
    what = end_error(end).message
    return MachineEnd(EndCause.NEVER_BOOTED, f"before its agent answered, {what}")


def end_of_link(error: GuestError) -> MachineEnd:
    """Return the end of a running machine whose guest link has failed with `error`."""
    cause = EndCause.LINK_LOST
    if isinstance(error, GuestHungError):
        cause = EndCause.HUNG
    elif isinstance(error, GuestProtocolError):
        cause = EndCause.PROTOCOL_BROKEN
    return MachineEnd(cause, error.message, error.hint)
