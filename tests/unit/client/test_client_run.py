"""How the end of a command is reported on the command line."""

import signal
from enum import IntEnum

import pytest

from boincvm.client.run import end_of
from boincvm.exit_codes import ExitCode


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        ({"code": 0}, 0, ""),
        ({"code": 7}, 7, "exit code 7"),
        ({"signal": int(signal.SIGKILL)}, 137, "ended by SIGKILL"),
        ({"signal": 77}, 205, "ended by signal 77"),
        ({"error": "no such program in the guest: x"}, ExitCode.NO_SUCH_PROGRAM, "no such"),
        ({"error": "the guest cannot execute x: no"}, ExitCode.CANNOT_EXECUTE, "cannot"),
        ({"error": "x cannot start in its directory"}, ExitCode.CANNOT_EXECUTE, "cannot"),
        ({"error": "the machine has ended"}, ExitCode.GUEST_DIED, "has ended"),
        ({"state": "lost", "why": "it left"}, ExitCode.GUEST_DIED, "lost: it left"),
        ({"state": "dropped", "why": "too late"}, ExitCode.TIME_LIMIT_EXCEEDED, "too late"),
        ({"state": "dropped", "why": "cancelled"}, ExitCode.INTERRUPTED, "cancelled"),
        (
            {"signal": 9, "timed_out": True},
            ExitCode.TIME_LIMIT_EXCEEDED,
            "its time limit was reached",
        ),
    ],
)
def test_ends(answer, code, words):
    end = end_of({"state": "ended", **answer})
    assert end.code == code
    assert words in end.message


def test_an_error_comes_with_what_to_do() -> None:
    error = {"state": "ended", "error": "the guest cannot execute x: no"}
    assert end_of({**error, "hint": "chmod +x x"}).hint == "chmod +x x"
    assert end_of(error).hint == ""  # of an older controller


def test_the_signals_are_the_guest_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' Python, whose signals these are, knows no SIGKILL."""
    monkeypatch.setattr(signal, "Signals", IntEnum("Signals", {"SIGINT": 2, "SIGTERM": 15}))
    assert end_of({"state": "ended", "signal": 9}).message == "ended by SIGKILL"
