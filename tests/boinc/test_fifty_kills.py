"""A program that saves nothing itself, killed fifty times, ends as if nothing had happened.

All processes are killed at once, including the client, as when a computer loses its power but
not what is on its disk.
"""

import hashlib
import json
import random
import sys
from pathlib import Path

import pytest

from boincvm.boinc.client_directory import Output, Preferences, TaskFile, Work
from support.boinc.installed import images, path
from support.boinc.rig import MakeRig, Rig
from support.boinc.watch import kill_all, until

KILLS = 50
LINES = 1500
PAUSE = 0.02
"""Seconds that a line takes at least."""
PERIOD = 1.0
"""Seconds between two checkpoints; the wrapper's own least period is longer than a test."""
MOST_LOST = PERIOD * 1.1 + 3.0
"""Seconds of running: a period, its jitter, and what a busy machine needs to make a checkpoint."""
START_LIMIT = 90.0

CHAIN = f"""
import hashlib, time
digest = b""
for number in range({LINES}):
    digest = hashlib.sha256(digest + b"%d" % number).digest()
    print(number, digest.hex(), flush=True)
    time.sleep({PAUSE})
"""
WRAPPER = f"""#!{sys.executable} -P
from boincvm.machine import checkpoint_schedule
checkpoint_schedule.LEAST_PERIOD = {PERIOD}
from boincvm.cli.boinc_wrapper import main
main()
"""
JOB = """<job_desc><task>
<application>/usr/bin/python3.11</application><command_line>chain.py</command_line>
<virtualmachine>vm</virtualmachine><app_pathVM>/usr/bin/python3.11</app_pathVM>
<copy_file_to_VM>chain.py</copy_file_to_VM><stdout_filename>out</stdout_filename>
<memory_mb>256</memory_mb>
</task></job_desc>"""


def uninterrupted() -> str:
    """Return what the program writes if it is not interrupted."""
    digest, lines = b"", []
    for number in range(LINES):
        digest = hashlib.sha256(digest + b"%d" % number).digest()
        lines.append(f"{number} {digest.hex()}\n")
    return "".join(lines)


@pytest.fixture
def rig(make_rig: MakeRig, base_image: Path) -> Rig:
    files = [
        TaskFile("wrapper_1.00", WRAPPER.encode(), executable=True),
        TaskFile("job_1.00.xml", JOB.encode(), open_name="job.xml"),
    ]
    work = Work(
        files,
        inputs=[TaskFile("chain_1", CHAIN.encode(), open_name="chain.py")],
        outputs=[Output("work_0_0", "out")],
    )
    return make_rig(
        work,
        preferences=Preferences(checkpoint_period=PERIOD),
        environment={**images(), "PATH": path()},
    )


def written(rig: Rig) -> int:
    """Return the lines in the output now."""
    output = rig.project / "work_0_0"
    return output.read_bytes().count(b"\n") if output.exists() else 0


def stored(rig: Rig) -> int:
    """Return the lines that the output had at the last checkpoint."""
    manifests = sorted((rig.slot() / "boincvm-machine-0").glob("checkpoint-*.json"))
    if not manifests:
        return 0
    (size,) = json.loads(manifests[-1].read_text())["task"]["files"].values()
    return (rig.project / "work_0_0").read_bytes()[:size].count(b"\n")


def cut_the_power(rig: Rig) -> None:
    kill_all([rig.client_pid, *rig.processes()])
    rig.kill_client()
    until(lambda: rig.processes() == [])


@pytest.mark.first
@pytest.mark.timeout(900)
def test_a_program_that_is_killed_fifty_times(rig: Rig) -> None:
    # Between the moment that it goes on and some time after a checkpoint, evenly: were they left to
    # chance, the program could come to its end before it was killed so often.
    moments = [
        1 + int(1.7 * PERIOD / PAUSE * (kill + random.random()) / KILLS) for kill in range(KILLS)
    ]
    random.shuffle(moments)
    lost: list[int] = []
    rig.start()
    for kill, moment in enumerate(moments):
        before = stored(rig)
        wanted = before + moment
        until(lambda: before < written(rig) >= wanted, START_LIMIT, story=rig.stderr())  # noqa: B023
        cut_the_power(rig)
        lost.append(written(rig) - stored(rig))
        assert lost[-1] * PAUSE <= MOST_LOST, rig.story(f"kill {kill} cost {lost[-1]} lines")
        assert written(rig) < LINES, "it ended before it was killed so often"
        rig.start()
    ended = rig.ended(300)
    assert ended.is_success, ended.stderr
    assert (rig.project / "work_0_0").read_text() == uninterrupted()
    assert not (rig.slot() / "boincvm-machine-0").exists()
    assert rig.processes() == []
    assert max(lost) > 0  # else nothing was ever at stake
