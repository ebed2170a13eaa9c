"""What a run says of how its program ended."""

import signal
from enum import IntEnum
from pathlib import Path

import pytest

from boincvm.guestlink.program import ProgramEnd
from boincvm.job.model import Job, MachineTask
from boincvm.runner.job_run import JobRun, Observer
from boincvm.runner.streams import RunStreams


@pytest.mark.parametrize(
    ("number", "note"), [(9, "signal 9 (SIGKILL) killed x"), (40, "signal 40 killed x")]
)
def test_the_signals_are_the_guest_s(
    monkeypatch: pytest.MonkeyPatch, number: int, note: str
) -> None:
    """Windows' Python, whose signals these are, knows no SIGKILL."""
    monkeypatch.setattr(signal, "Signals", IntEnum("Signals", {"SIGINT": 2, "SIGTERM": 15}))
    task = MachineTask(("x",))
    run = JobRun(Job((task,), Path()), RunStreams(Path(), capture=True), Observer())
    run._check_end(task, ProgramEnd(None, number, 0.0, 0.0, 0, 0, 1 << 30))
    assert run.outcome.note == note
    assert run.outcome.exit_code == 128 + number
