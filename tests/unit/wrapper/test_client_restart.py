"""A job that continues where an earlier run of our wrapper, or of BOINC's, has left it."""

import json
import signal
import zipfile
from pathlib import Path

import pytest

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from support.host_slot import HostSlot, task

pytestmark = pytest.mark.timeout(90)

OUT = "<stdout_filename>out</stdout_filename>"
BURN = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"
"""Takes some tenths of a second of CPU time."""
WAIT = "echo waits; while [ ! -e go ]; do sleep 0.01; done; echo goes"
STATE = {"version": 1, "tasks_done": 1, "failures": 0, "guest": 5.0, "host": 7.0, "wall": 9.0}


async def leave(slot: HostSlot, way: str) -> None:
    """End the wrapper, in order or not."""
    if way == "kill":
        slot.kill(signal.SIGKILL)
    else:
        slot.send(Control.QUIT)
    await slot.wait()


@pytest.mark.parametrize("way", ["quit", "kill"])
async def test_tasks_that_are_done_stay_done(slot: HostSlot, way: str) -> None:
    slot.job(task("echo first", OUT), task(BURN), task(WAIT, OUT), task("echo last", OUT))
    for _ in range(2):
        await slot.begin()
        await slot.wait_for_text("out", "waits")
        await leave(slot, way)
        assert slot.text("out") == "first\nwaits\n"
        slot.write("out", "first\n")
        assert slot.text("wrapper_checkpoint.txt").startswith("2 ")
    slot.write("go", "")
    await slot.ends_well()
    assert slot.text("out") == "first\nwaits\ngoes\nlast\n"


async def test_a_job_that_is_done_says_so(slot: HostSlot) -> None:
    slot.job(task("echo first", OUT))
    await slot.ends_well()
    assert "done already" not in slot.stderr
    await slot.ends_well()
    assert "all tasks of the job are done already" in slot.stderr
    assert "remove wrapper_checkpoint.txt and boincvm_state.json" in slot.stderr
    assert slot.text("out") == "first\n"


async def test_after_the_clients_death(slot: HostSlot, tmp_path: Path) -> None:
    slot.job(task("echo first", OUT), task(WAIT, OUT))
    await slot.begin()
    await slot.wait_for_text("out", "waits")
    await slot.die()
    end = await slot.wait()
    assert (end.kind, end.status) == (EndKind.PREMATURE, 0)
    async with HostSlot(tmp_path / "another") as other:
        for name in ("job.xml", "out", "wrapper_checkpoint.txt", "boincvm_state.json"):
            other.write(name, slot.text(name))
        other.write("go", "")
        await other.ends_well()
        assert other.text("out") == "first\nwaits\nwaits\ngoes\n"


async def test_the_cpu_time_goes_on(slot: HostSlot) -> None:
    slot.job(task(BURN), task(f"{BURN}; {WAIT}", OUT), task(BURN))
    await slot.begin()
    await slot.wait_for_text("out", "waits")
    await slot.status()
    before = (await slot.status()).cpu_time
    done = float(slot.text("wrapper_checkpoint.txt").split()[1])
    assert 0 < done < before
    slot.send(Control.QUIT)
    await slot.wait()
    count = len(slot.statuses)
    slot.write("go", "")
    await slot.ends_well()
    times = [output.value.cpu_time for output in slot.statuses[count:]]
    assert times == sorted(times)
    assert times[0] >= done
    assert times[-1] > before
    assert f"reported: {times[-1]:.1f} s" in slot.stderr


@pytest.mark.parametrize(
    ("checkpoint", "state", "skipped", "cpu_time"),
    [
        ("1 2.500000 3.000000\n", None, 1, 2.5),
        ("1 2.500000 3.000000\n", json.dumps(STATE | {"tasks_done": 2}), 1, 2.5),
        ("1 2.500000 3.000000\n", json.dumps(STATE), 1, 2.5),
        ("1 5.000000 9.000000\n", json.dumps(STATE), 1, 5.0),
        ("1 2.500000 3.000000\n", "[" * 4000, 1, 2.5),
        ("2 1e1 3\nmore", None, 2, 10.0),
        ("3 2.5 3.0\n", None, 3, 2.5),
        ("0 0.000000 0.000000\n", None, 0, 0.0),
        ("-1 2.5 3\n", None, 0, 0.0),
        ("4 2.5 3\n", json.dumps(STATE | {"tasks_done": 4}), 0, 0.0),
        ("1 2.5", None, 0, 0.0),
        ("1 nan -7\n", None, 1, 0.0),
        ("", json.dumps(STATE), 0, 0.0),
        ("\0" * 20, None, 0, 0.0),
    ],
)
async def test_what_the_stock_wrapper_or_a_fault_has_left(
    slot: HostSlot, checkpoint: str, state: str | None, skipped: int, cpu_time: float
) -> None:
    slot.write("wrapper_checkpoint.txt", checkpoint)
    if state is not None:
        slot.write("boincvm_state.json", state)
    slot.job(*(task(f"echo {n}", OUT) for n in range(3)))
    await slot.ends_well()
    assert slot.text("out").split() == [str(n) for n in range(skipped, 3)]
    done, cpu, _ = slot.text("wrapper_checkpoint.txt").split()
    assert int(done) == 3
    assert cpu_time <= float(cpu) < cpu_time + 1
    assert slot.statuses[-1].value.cpu_time >= cpu_time


async def test_a_program_that_makes_checkpoints(slot: HostSlot) -> None:
    """The client recognizes a checkpoint by a change of the reported time."""
    checkpoint = "<checkpoint_filename>saved</checkpoint_filename>"
    slot.job(task("true"), task(f"{BURN}; echo > saved; {WAIT}", OUT, checkpoint))
    await slot.begin()
    await slot.wait_for_text("out", "waits")
    await slot.holds(lambda: slot.statuses[-1].value.checkpoint_cpu_time > 0.05)
    done, cpu, _ = slot.text("wrapper_checkpoint.txt").split()
    assert done == "1"
    reported = slot.statuses[-1].value.checkpoint_cpu_time
    assert float(cpu) == pytest.approx(reported, abs=1e-5)
    await slot.status()
    assert (await slot.status()).checkpoint_cpu_time == reported  # no news, no checkpoint
    slot.kill()
    await slot.wait()
    count = len(slot.statuses)
    slot.write("go", "")
    await slot.ends_well()
    assert slot.statuses[count].value.checkpoint_cpu_time >= reported


async def test_a_checkpoint_made_on_the_way_out(slot: HostSlot) -> None:
    """The program is notified by SIGTERM, and what it then saves counts."""
    script = f"trap 'sleep 0.1; echo > saved; exit 0' TERM; {BURN}; {WAIT}"
    slot.job(task(script, OUT, "<checkpoint_filename>saved</checkpoint_filename>"))
    await slot.begin()
    await slot.wait_for_text("out", "waits")
    slot.send(Control.QUIT)
    await slot.wait()
    done, cpu, elapsed = slot.text("wrapper_checkpoint.txt").split()
    assert done == "0"
    assert float(cpu) > 0.05
    assert float(elapsed) > 0.1


async def test_archives_over_a_restart(slot: HostSlot) -> None:
    with zipfile.ZipFile(slot.path / "in.zip", "w") as made:
        made.writestr("data", "as it came")
    slot.slot.link("result.zip", "wu_0_result")
    slot.job(
        task("echo mine > data; cp data result1; echo > early", OUT),
        task(f"{WAIT}; echo > result2", OUT),
        more="<unzip_input><zipfilename>in.zip</zipfilename></unzip_input><zip_output>"
        "<zipfilename>result.zip</zipfilename><filename>^result</filename>"
        "<filename>data</filename></zip_output>",
    )
    await slot.begin()
    await slot.wait_for_text("out", "waits")
    slot.kill()
    await slot.wait()
    slot.write("go", "")
    await slot.ends_well()
    with zipfile.ZipFile(slot.slot.project / "wu_0_result") as packed:
        assert sorted(packed.namelist()) == ["result1", "result2"]
        assert packed.read("result1") == b"mine\n"  # unpacked once, not again


async def test_killed_between_the_archive_and_the_end(slot: HostSlot) -> None:
    slot.write("wrapper_checkpoint.txt", "1 1.0 1.0\n")
    slot.write("out.zip", "is there")
    slot.job(
        task("echo again", OUT),
        more="<zip_output><zipfilename>out.zip</zipfilename><filename>x</filename></zip_output>",
    )
    await slot.ends_well()
    assert slot.text("out.zip") == "is there"
    assert slot.text("out") == ""
