"""How each error ends a task: permanently if the job is at fault, temporarily if the host is."""

import errno
from collections.abc import Iterator

import pytest

from boincvm import errors
from boincvm.errors import BoincvmError, HostDiskFullError, HostError, LimitError
from boincvm.exit_codes import ExitCode
from boincvm.machine import errors as machine_errors
from boincvm.wrapper import task_errors
from boincvm.wrapper.outcome import (
    MOST_FAILURES,
    End,
    Finished,
    Postponed,
    end_of,
    error_of_system,
)

TEXT = "it went wrong; look there"
MACHINE = Postponed(60, TEXT, notice=False)
ENDS: dict[str, End] = {
    "UsageError": Finished(206, TEXT),
    "JobFileError": Finished(206, TEXT),
    "InputFileError": Finished(206, TEXT),
    "OutputFileError": Finished(195, TEXT),
    "ProgramStartError": Finished(195, TEXT),
    "TaskFailedError": Finished(195, TEXT),
    "LimitError": Finished(ExitCode.BUG, TEXT),
    "ImageBuildError": Finished(195, TEXT),
    "HypervisorMissingError": Postponed(3600, TEXT, notice=True),
    "PreferencesError": Postponed(3600, TEXT, notice=True),
    "ImageMissingError": Postponed(3600, TEXT, notice=True),
    "ImageDamagedError": Postponed(3600, TEXT, notice=True),
    "HostDiskFullError": Postponed(1800, TEXT, notice=True),
    "NotEnoughRoomError": Postponed(600, TEXT, notice=False),
    "NoRoomForCheckpointError": MACHINE,
    "SavedMachineError": Postponed(1, TEXT, notice=False),
    "HypervisorError": MACHINE,
    "HypervisorKilledError": MACHINE,
    "GuestError": MACHINE,
    "GuestNeverBootedError": MACHINE,
    "GuestHungError": MACHINE,
    "GuestDiedError": MACHINE,
    "GuestPoweredOffError": MACHINE,
    "GuestPanickedError": MACHINE,
    "GuestProtocolError": MACHINE,
    "HostError": MACHINE,
    "UnsupportedHostError": Finished(206, TEXT),
}


def all_errors() -> Iterator[type[BoincvmError]]:
    for module in (errors, machine_errors, task_errors):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, BoincvmError):
                yield value


# What a program asks for is no error of anybody's: run.py takes it apart.
# A task is on no bus, and asks no controller.
OTHERS = {
    BoincvmError,
    errors.BusError,
    errors.ControllerAwayError,
    errors.ControllerGoneError,
    errors.MachineStateError,
    task_errors.TemporaryExitError,
}


@pytest.mark.parametrize("kind", sorted(set(all_errors()) - OTHERS, key=lambda kind: kind.__name__))
def test_every_error(kind: type[BoincvmError]) -> None:
    assert end_of(kind("it went wrong", hint="look there"), failures=1) == ENDS[kind.__name__]


def test_a_hint_is_no_must() -> None:
    assert end_of(HostDiskFullError("it is full"), 1) == Postponed(1800, "it is full", notice=True)


@pytest.mark.parametrize("code", [code for code in ExitCode if code.name.endswith("_EXCEEDED")])
def test_limits_keep_their_codes(code: ExitCode) -> None:
    assert end_of(LimitError("used up", exit_code=code), 1) == Finished(code, "used up")


def test_a_machine_that_fails_again_waits_longer_and_not_for_ever() -> None:
    ends = [end_of(HostError("no"), failures) for failures in range(1, MOST_FAILURES + 2)]
    delays = [end.delay for end in ends if isinstance(end, Postponed)]
    assert delays == [60, 120, 240, 480]
    assert ends[-2] == Finished(208, "no (5 times)")
    assert ends[-1] == Finished(208, "no (6 times)")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_distinguished(number: int) -> None:
    error = error_of_system("it was not written", OSError(number, "No space"))
    assert isinstance(error, HostDiskFullError)
    assert "it was not written" in error.message


@pytest.mark.parametrize(
    ("error", "words"), [(OSError(errno.EIO, "I/O error"), "I/O error"), (OSError("odd"), "odd")]
)
def test_other_errors_of_the_system(error: OSError, words: str) -> None:
    found = error_of_system("it was not written", error)
    assert isinstance(found, HostError)
    assert found.message == f"it was not written: {words}"
