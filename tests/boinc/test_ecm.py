"""The example that a project would ship, in a machine, through a task's whole life."""

import math
import shutil
import subprocess
from pathlib import Path

import pytest

from support.boinc import ecm
from support.boinc.installed import WRAPPER, images, path
from support.boinc.rig import SUSPENDED, MakeRig, Rig
from support.boinc.watch import cpu_ticks, until

BOOT_LIMIT = 120.0
"""Seconds until a machine's program must have told of its first progress."""
LONG = "300 400 701"
"""GMP-ECM finds a factor by the 374th of these curves: half a minute of emulation."""
SHORT = "300 400 1060"
"""By the 15th."""


@pytest.fixture
def rig(make_rig: MakeRig, sci_image: Path, request: pytest.FixtureRequest) -> Rig:
    """A started one; the parameter is the example's command line."""
    rig = make_rig(ecm.work(request.param), environment={**images(), "PATH": path()})
    rig.start()
    return rig


def machine_of(rig: Rig) -> int:
    """The process id of its hypervisor."""
    (pid,) = (
        pid
        for pid in rig.processes()
        if b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    )
    return pid


def check_factors(rig: Rig) -> None:
    """The client has taken a right result."""
    ended = rig.ended(300)
    assert ended.is_success, ended.stderr
    factors = [int(word) for word in (rig.project / "work_0_0").read_text().split()]
    assert len(factors) == 2
    assert all(factor > 1 for factor in factors)
    assert math.prod(factors) == int(ecm.NUMBER.read_text())
    assert rig.processes() == []


def test_the_example_says_one_thing_in_both_ways() -> None:
    assert ecm.version_files() == ecm.app_info_files()
    assert ecm.declared_executables() == {f.name for f in ecm.version_files() if f.executable}


@pytest.mark.timeout(200)
def test_the_example_runs_without_a_client(tmp_path: Path, sci_image: Path) -> None:
    for file in ecm.version_files()[1:]:
        shutil.copy(ecm.EXAMPLE / "app" / file.name, tmp_path / file.open_name)
    shutil.copy(ecm.NUMBER, tmp_path)
    done = subprocess.run([WRAPPER, *SHORT.split()], cwd=tmp_path, timeout=150, check=False)
    assert done.returncode == 0
    factors = [int(word) for word in (tmp_path / "factors.txt").read_text().split()]
    assert math.prod(factors) == int(ecm.NUMBER.read_text())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("rig", [SHORT], indirect=True)
def test_the_example_runs(rig: Rig) -> None:
    check_factors(rig)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rig", [LONG], indirect=True)
def test_a_machine_through_suspend_quit_restart_and_completion(rig: Rig) -> None:
    rig.until(lambda task: task.fraction_done > 0.02, BOOT_LIMIT)
    machine = machine_of(rig)

    rig.suspend()
    rig.until(lambda task: task.process_state == SUSPENDED)
    until(lambda: is_idle(machine), story=rig.stderr())
    rig.resume()
    before = rig.task().fraction_done
    rig.until(lambda task: task.fraction_done > before + 0.02)

    leave_and_come_back(rig)
    rig.suspend()
    rig.until(lambda task: task.process_state == SUSPENDED)
    leave_and_come_back(rig)
    check_factors(rig)


def leave_and_come_back(rig: Rig) -> None:
    """The client quits, with nothing left of the machine but what is on disk; and goes on."""
    task = rig.task()
    before = task.fraction_done
    rig.quit()
    assert rig.processes() == [], rig.stderr()
    assert not (rig.slot() / "boinc_finish_called").exists()
    assert not (rig.slot() / "boinc_temporary_exit").exists()
    restart = len(rig.log)
    rig.start()
    if rig.task().suspended:
        rig.resume()
    # The client may know it before it has written it to its log.
    rig.until(lambda task: task.fraction_done > before and any(rig.fractions(restart)), BOOT_LIMIT)
    # A machine that had started anew would have told of less.
    told = [fraction for fraction in rig.fractions(restart) if fraction > 0]
    assert min(told) >= before, rig.story("it began anew")
    # The save's figures, although the client had heard of no checkpoint before it was told to end.
    now = rig.task()
    assert now.checkpoint_cpu_time >= task.cpu_time > 0, rig.story(f"{task} {now}")
    assert now.elapsed_time > task.elapsed_time, rig.story(f"{task} {now}")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("rig", [LONG], indirect=True)
def test_abort_ends_a_machine_that_is_suspended(rig: Rig) -> None:
    rig.until(lambda task: task.fraction_done > 0, BOOT_LIMIT)
    machine = machine_of(rig)
    rig.suspend()
    until(lambda: is_idle(machine), story=rig.stderr())
    rig.abort()
    assert until(lambda: rig.processes() == [], story=rig.stderr()) < 5.0


@pytest.mark.timeout(400)
@pytest.mark.parametrize("rig", [LONG], indirect=True)
def test_a_machine_does_not_outlive_the_client(rig: Rig) -> None:
    rig.until(lambda task: task.fraction_done > 0, BOOT_LIMIT)
    rig.kill_client()
    until(lambda: rig.processes() == [], story=rig.stderr())


def is_idle(pid: int) -> bool:
    """Whether it uses no processor time for a while, as a paused machine does."""
    begin = cpu_ticks(pid)
    try:
        until(lambda: cpu_ticks(pid) > begin, 1.0)
    except AssertionError:
        return True
    return False
