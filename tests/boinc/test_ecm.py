"""Run the example, as a project would release it, in a machine through a task's whole life."""

import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from boincvm.image.pack import pack_image
from boincvm.image.store import ImageStore
from boincvm.machine.golden.switch import SWITCH
from support import CHECKOUT
from support.boinc import ecm
from support.boinc.installed import images, path
from support.boinc.rig import SUSPENDED, MakeRig, Rig
from support.boinc.watch import cpu_ticks, until
from support.host_delays import within

BOOT_LIMIT = 120.0
"""Seconds until a machine's program must have told of its first progress."""
LONG = "300 400 701"
"""GMP-ECM finds a factor by the 374th of these curves: half a minute of emulation."""
SHORT = "300 400 1060"
"""By the 15th."""


@pytest.fixture
def rig(make_rig: MakeRig, sci_image: Path, request: pytest.FixtureRequest) -> Rig:
    """Return a started rig; the parameter is the example's command line."""
    rig = make_rig(ecm.work(request.param), environment={**images(), "PATH": path()})
    rig.start()
    return rig


def machine_of(rig: Rig) -> int:
    """Return the process id of its hypervisor."""
    (pid,) = (
        pid
        for pid in rig.processes()
        if b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    )
    return pid


def check_factors(rig: Rig) -> None:
    """Check that the client has accepted a right result."""
    ended = rig.ended(300)
    assert ended.is_success, ended.stderr
    factors = [int(word) for word in (rig.project / "work_0_0").read_text().split()]
    assert len(factors) == 2
    assert all(factor > 1 for factor in factors)
    assert math.prod(factors) == int(ecm.NUMBER.read_text())
    assert rig.processes() == []


def test_the_example_says_one_thing_in_both_ways() -> None:
    for packed in (None, Path("packed")):
        assert ecm.version_files(packed) == ecm.app_info_files(packed)
    assert ecm.declared_executables() == {f.name for f in ecm.version_files() if f.executable}


@pytest.mark.timeout(300)
def test_the_example_as_its_page_says(tmp_path: Path, sci_image: Path) -> None:
    """In an empty directory: without BOINC, then what was packed there under the client."""
    page = (ecm.EXAMPLE / "README.md").read_text()
    tried = page.split("\n## Test it first")[1].split("\n## In a project")[0]
    commands = "".join(re.findall(r"^```\n(.*?)^```\n", tried, re.MULTILINE | re.DOTALL))
    assert "\nboincvm-wrapper " in commands
    assert "\nboincvm boinc try " in commands
    packaged = "example=/usr/share/doc/boincvm/examples/boinc-ecm\n"
    assert commands.startswith(packaged)
    commands = commands.replace(packaged, f"example={ecm.EXAMPLE}\n")
    commands = commands.replace("boincvm boinc try", "mv factors.txt first; boincvm boinc try")
    environment = {**os.environ, SWITCH: "no", "PATH": path()}
    subprocess.run(
        ["bash", "-e", "-c", commands], cwd=tmp_path, env=environment, timeout=280, check=True
    )
    for name in ("first", "factors.txt"):
        factors = [int(word) for word in (tmp_path / name).read_text().split()]
        assert math.prod(factors) == int(ecm.NUMBER.read_text())


@pytest.mark.timeout(300)
def test_a_new_version_of_the_image_as_the_manual_says(tmp_path: Path, sci_image: Path) -> None:
    """Version 1.0 has an image without GMP-ECM, so only the one of 1.1 can find factors."""
    page = (CHECKOUT / "docs/boinc-server.md").read_text()
    steps = page.split("\n## A new version of the image")[1].split("\n**The next version**")[0]
    commands = re.findall(r"^   ```\n(.*?)^   ```\n", steps, re.MULTILINE | re.DOTALL)
    (element,) = re.findall(r"^   ```xml\n(.*?)^   ```\n", steps, re.MULTILINE | re.DOTALL)
    assert len(commands) == 3  # the first builds the image

    (tmp_path / "apps/ecm/1.0").mkdir(parents=True)
    version = tmp_path / "apps/ecm/1.0/x86_64-pc-linux-gnu"
    shutil.copytree(ecm.EXAMPLE / "app", version)
    with ImageStore().open("base") as image:
        pack_image(image, version / ecm.PACKED)
    environment = {**os.environ, SWITCH: "no", "PATH": path()}
    script = ["bash", "-e", "-c", "".join(commands[1:])]
    subprocess.run(script, cwd=tmp_path, env=environment, timeout=120, check=True)

    app = tmp_path / "apps/ecm/1.1" / version.name
    assert (app / "ecm_image_1.1.patch").stat().st_size < (app / ecm.PACKED).stat().st_size / 50
    text = (app / "version.xml").read_text()
    (app / "version.xml").write_text(
        text.replace("    <is_wrapper/>", f"{element}    <is_wrapper/>")
    )
    command = ["boincvm", "boinc", "try", "--input", f"number.txt={ecm.NUMBER}"]
    command += ["--output", "factors.txt", str(app), "--", *SHORT.split()]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, timeout=280, text=True, stderr=subprocess.PIPE
    )
    assert done.returncode == 0, done.stderr
    with ImageStore().open("sci") as image:
        line = f"the image {image.digest[:12]} is ecm_image.tar.gz with 1 patch\n"
    assert line in done.stderr
    factors = [int(word) for word in (tmp_path / "factors.txt").read_text().split()]
    assert math.prod(factors) == int(ecm.NUMBER.read_text())


@pytest.mark.timeout(100)
def test_the_example_waits_where_boincvm_is_missing(make_rig: MakeRig, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    rig = make_rig(ecm.work(SHORT), environment={"PATH": str(tmp_path / "empty")})
    rig.start()
    assert "this task needs boincvm" in rig.wait_for_line("postponed")
    until(lambda: any("boincvm-wrapper" in notice for notice in rig.notices()), story=rig.log)


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
    """Let the client quit, check that only files are left of the machine, and start the client
    again."""
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
    # A machine that had started over would have reported less.
    reported = [fraction for fraction in rig.fractions(restart) if fraction > 0]
    assert min(reported) >= before, rig.story("it started over")
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
    with within(5.0):
        until(lambda: rig.processes() == [], story=rig.stderr())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("rig", [LONG], indirect=True)
def test_a_machine_does_not_outlive_the_client(rig: Rig) -> None:
    rig.until(lambda task: task.fraction_done > 0, BOOT_LIMIT)
    rig.kill_client()
    until(lambda: rig.processes() == [], story=rig.stderr())


def is_idle(pid: int) -> bool:
    """Tell whether it uses no processor time for a while, as a paused machine."""
    begin = cpu_ticks(pid)
    try:
        until(lambda: cpu_ticks(pid) > begin, 1.0)
    except AssertionError:
        return True
    return False
