"""The rig itself, with an application that contains nothing of boincvm."""

import os
import signal
import sys
from pathlib import Path

import pytest

from boincvm.boinc.client_directory import Output, TaskFile, Work
from support.boinc import stand_in
from support.boinc.rig import COMPUTE_ERROR, FILES_UPLOADING, SUSPENDED, MakeRig, Rig
from support.boinc.watch import LIMIT, is_gone, until

STAND_IN = Path(stand_in.__file__)
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def rig(make_rig: MakeRig, request: pytest.FixtureRequest) -> Rig:
    """Return a started rig; the parameter is the stand-in's command line."""
    script = f"#!{sys.executable}\n".encode() + STAND_IN.read_bytes()
    work = Work(
        app_files=[TaskFile("stand_in", script, executable=True)],
        outputs=[Output("work_0_out", "out")],
        command_line=request.param,
        is_wrapper=False,
    )
    rig = make_rig(work)
    rig.start()
    assert rig.next_message() == "started"
    return rig


@pytest.mark.parametrize(
    ("rig", "state", "status"),
    [("0.2 0", FILES_UPLOADING, 0), ("0.2 7", COMPUTE_ERROR, 7)],
    indirect=["rig"],
)
def test_an_end(rig: Rig, state: int, status: int) -> None:
    ended = rig.ended()
    assert (ended.state, ended.exit_status) == (state, status), rig.story("")
    assert "the stand-in starts" in ended.stderr
    assert (rig.project / "work_0_out").read_text() == "made by the stand-in\n"


@pytest.mark.parametrize("rig", ["600 0"], indirect=True)
def test_what_a_manager_can_do(rig: Rig) -> None:
    pid = rig.running().pid
    rig.suspend()
    assert rig.next_message() == "suspend"
    rig.until(lambda task: task.process_state == SUSPENDED)
    rig.resume()
    assert rig.next_message() == "resume"
    rig.until(lambda task: 0 < task.fraction_done < 0.1)
    rig.quit()
    assert rig.next_message() == "quit"
    assert is_gone(pid)
    rig.start()
    assert rig.next_message() == "started"
    rig.abort()
    assert rig.next_message() == "abort"
    assert rig.until(lambda task: task.is_over).exit_status != 0


@pytest.mark.parametrize("rig", ["600 0"], indirect=True)
def test_nothing_is_left_not_even_what_is_stopped(rig: Rig) -> None:
    pid = rig.running().pid
    os.kill(pid, signal.SIGSTOP)
    rig.kill_client()
    assert rig.processes() == [pid]
    rig.close()
    until(lambda: is_gone(pid), LIMIT)
    assert not rig.root.exists()
