"""The tree of exceptions. Each says what happened and why; `hint` says what to do.

BoincvmError
├── UsageError              the command line is wrong
│   └── MachineStateError   a machine is in a state in which it cannot do what is asked
├── JobFileError            a job file is wrong (file, line, found, expected)
├── InputFileError          an input file is missing, unsafe or unreadable
├── OutputFileError         an output file is missing, unsafe or cannot be written
├── HypervisorMissingError  the hypervisor is not installed
├── HypervisorError         the hypervisor refused or died
│   └── HypervisorKilledError   somebody or the host's system killed it
├── GuestError
│   ├── GuestNeverBootedError
│   ├── GuestHungError
│   ├── GuestDiedError
│   │   ├── GuestPoweredOffError   it turned itself off, or rebooted
│   │   └── GuestPanickedError     its kernel gave up
│   └── GuestProtocolError  the guest sent what it may not send
├── ProgramStartError       the guest has no such program, or cannot execute it
├── TaskFailedError         a task of a BOINC job has failed
├── LimitError              time, memory or disk of the job are used up
├── ImageMissingError
├── ImageDamagedError
├── ImageBuildError
├── BusError                the message bus cannot be reached, or refuses
├── HostDiskFullError
└── HostError               the host's system refused another request
    ├── PreferencesError        the volunteer's preferences cannot be followed
    └── UnsupportedHostError    boincvm does not do that on this system yet
"""

import errno

from boincvm.exit_codes import ExitCode

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Values of OSError.errno when a disk or a user's quota is full."""


class BoincvmError(Exception):
    """An error for a person to read and act upon: one line, and a hint on what to do next."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, *, hint: str = "", exit_code: ExitCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def table(self) -> dict[str, str | int]:
        """Return the error as a JSON object for programs."""
        return {"message": self.message, "hint": self.hint, "code": int(self.exit_code)}


class UsageError(BoincvmError):
    exit_code = ExitCode.USAGE


class MachineStateError(UsageError):
    """The request is valid, but not for a machine in this state."""


class JobFileError(BoincvmError):
    exit_code = ExitCode.JOB_FILE


class InputFileError(BoincvmError):
    exit_code = ExitCode.INPUT_FILE


class OutputFileError(BoincvmError):
    exit_code = ExitCode.OUTPUT_FILE


class HypervisorMissingError(BoincvmError):
    exit_code = ExitCode.HYPERVISOR_MISSING


class HypervisorError(BoincvmError):
    exit_code = ExitCode.HYPERVISOR_FAILED


class HypervisorKilledError(HypervisorError):
    """Somebody or the host's system killed it, which says nothing about what it ran."""


class GuestError(BoincvmError):
    """The guest, not the host, is at fault."""


class GuestNeverBootedError(GuestError):
    exit_code = ExitCode.GUEST_NEVER_BOOTED


class GuestHungError(GuestError):
    exit_code = ExitCode.GUEST_HUNG


class GuestDiedError(GuestError):
    exit_code = ExitCode.GUEST_DIED


class GuestPoweredOffError(GuestDiedError):
    """A program in the guest turned it off or rebooted it."""


class GuestPanickedError(GuestDiedError):
    """The guest's kernel panicked."""


class GuestProtocolError(GuestError):
    exit_code = ExitCode.GUEST_PROTOCOL


class ProgramStartError(BoincvmError):
    exit_code = ExitCode.NO_SUCH_PROGRAM


class TaskFailedError(BoincvmError):
    exit_code = ExitCode.CHILD_FAILED


class LimitError(BoincvmError):
    """A limit was exceeded; `exit_code` tells which: time, memory or disk."""


class ImageMissingError(BoincvmError):
    exit_code = ExitCode.IMAGE_MISSING


class ImageDamagedError(BoincvmError):
    exit_code = ExitCode.IMAGE_DAMAGED


class ImageBuildError(BoincvmError):
    exit_code = ExitCode.IMAGE_BUILD


class BusError(BoincvmError):
    exit_code = ExitCode.BUS


class HostDiskFullError(BoincvmError):
    exit_code = ExitCode.HOST_DISK_FULL


class HostError(BoincvmError):
    exit_code = ExitCode.HOST


class PreferencesError(HostError):
    """What the volunteer has written in the preferences cannot be followed."""


class UnsupportedHostError(HostError):
    """boincvm does not do that on this operating system yet."""


def host_error(
    what: str,
    error: OSError,
    kind: type[BoincvmError] = HostError,
    *,
    hint: str = "",
    full: HostDiskFullError | None = None,
) -> BoincvmError:
    """Return the error for a system call that failed: `what` and the reason, in one line.

    It is HostDiskFullError, or `full`, where the disk or this user's quota is full; else `kind`
    with `hint`.
    """
    reason = error.strerror or str(error)
    if error.errno in DISK_FULL:
        return full or HostDiskFullError(f"{what}: {reason}", hint="free some space and try again")
    return kind(f"{what}: {reason}", hint=hint)


class ControllerAwayError(HostError):
    """No controller answers."""


class ControllerGoneError(ControllerAwayError):
    """The controller answered before, and has gone since."""
