"""What is reported to the client about tasks on the host: progress, time, memory, trickles."""

import re
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from support.host_slot import SHORTENED, HostSlot, task

pytestmark = pytest.mark.timeout(90)

OUT = "<stdout_filename>out</stdout_filename>"
FRACTION = "<fraction_done_filename>fraction</fraction_done_filename>"
BURN = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"
"""Takes some tenths of a second of CPU time."""


def until(name: str) -> str:
    """Return a line of a shell script."""
    return f"while [ ! -e {name} ]; do sleep 0.01; done"


async def fraction_is(slot: HostSlot, fraction: float) -> None:
    def is_so() -> bool:
        return bool(slot.statuses) and slot.statuses[-1].value.fraction_done == fraction

    await slot.holds(is_so)


async def test_the_fraction_by_weights(slot: HostSlot) -> None:
    slot.write("fraction", "0.9")  # of an earlier start
    slot.job(
        task(until("a"), "<weight>1</weight>", FRACTION),
        task(f"echo 0.5 > fraction; {until('b')}; echo 7 >> fraction; {until('c')}",
             "<weight>2</weight>", FRACTION),
        task(until("d"), "<weight>5</weight>"),
        task("sleep 1000", "<daemon/><weight>100</weight>"),
    )  # fmt: skip
    await slot.begin()
    await slot.status()
    await fraction_is(slot, 0)
    for name, fraction in (("a", 0.25), ("b", 0.375)):
        slot.write(name, "")
        await fraction_is(slot, fraction)
    slot.send(Control.QUIT)
    await slot.wait()
    (slot.path / "b").unlink()
    await slot.begin()
    await fraction_is(slot, 0.25)  # the second task starts at zero
    slot.write("b", "")
    slot.write("c", "")
    await fraction_is(slot, 0.375)
    slot.write("d", "")
    end = await slot.wait()
    assert end.kind is EndKind.FINISHED, slot.stderr
    assert slot.statuses[-1].value.fraction_done == 1


async def test_the_times_are_the_whole_trees(slot: HostSlot) -> None:
    """They include living and ended children; a daemon's is not the task's."""
    slot.job(
        task(f"({BURN}); echo $(cut -d' ' -f16-17 /proc/$$/stat) > ended; "
             f"({BURN}; {until('go')}) & wait", OUT),
        task("while :; do :; done", "<daemon/>"),
    )  # fmt: skip
    await slot.begin()
    await slot.wait_for_text("ended", "\n")
    ended = sum(map(int, slot.text("ended").split())) / 100
    assert ended > 0.05
    await slot.holds(lambda: slot.statuses[-1].value.cpu_time > 1.5 * ended)
    status = slot.statuses[-1].value
    assert status.other_pid in slot.of_tasks()
    assert status.resident is not None
    assert status.resident > 1_000_000
    slot.write("go", "")
    end = await slot.wait()
    assert end.kind is EndKind.FINISHED, slot.stderr
    times = [output.value.cpu_time for output in slot.statuses]
    assert times == sorted(times)
    figures = [float(word) for word in re.findall(r"([\d.]+) s[,; ]", slot.stderr)]
    guest, host, wall, reported = figures
    assert guest == host == reported == pytest.approx(times[-1], abs=0.051)
    assert times[-1] < wall + 0.051 < 20  # one processor's worth, with the daemon's left out


@pytest.mark.parametrize(
    ("element", "factor"),
    [("<cpu_time_scale>3</cpu_time_scale>", 3), ("<cpu_time>wall</cpu_time>", 0)],
)
async def test_another_time_is_reported(slot: HostSlot, element: str, factor: int) -> None:
    slot.job(task(f"{BURN}; sleep 0.3"), more=element)
    await slot.ends_well()
    guest, _, wall, reported = map(float, re.findall(r"([\d.]+) s[,; ]", slot.stderr))
    expected = factor * guest or wall
    assert reported == pytest.approx(expected, abs=0.051 * (factor + 1))
    assert slot.statuses[-1].value.cpu_time == pytest.approx(reported, abs=0.051)
    count = len(slot.statuses)
    await slot.ends_well()
    assert slot.statuses[count].value.cpu_time == slot.statuses[count - 1].value.cpu_time


async def test_suspended_time_does_not_count(slot: HostSlot) -> None:
    slot.job(task(f"echo begin; {until('go')}", OUT), more="<cpu_time>wall</cpu_time>")
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    await slot.suspend()
    await slot.status()  # it may have been sent before
    first = await slot.status()
    for _ in range(5):
        last = await slot.status()
    assert last.cpu_time == first.cpu_time
    slot.send(Control.RESUME)
    await slot.holds(lambda: slot.statuses[-1].value.cpu_time > last.cpu_time + 0.3)
    slot.write("go", "")
    assert (await slot.wait()).kind is EndKind.FINISHED


def cpu_times(slot: HostSlot) -> list[float]:
    pattern = r"<variety>cpu_time</variety>\n<cpu_time>([\d.]+)</cpu_time>"
    matches = [re.fullmatch(pattern, output.value) for output in slot.trickle_ups]
    assert all(matches)
    return [float(match[1]) for match in matches if match]


async def test_trickles(slot: HostSlot) -> None:
    slot.job(task(until("go")), task("true"))
    began = time.monotonic()
    await slot.begin("--trickle", "0.3")
    await slot.holds(lambda: len(slot.trickle_ups) >= 8)
    slot.send(Control.QUIT)
    await slot.wait()
    first_run = time.monotonic() - began
    began = time.monotonic()
    await slot.begin("--trickle", "0.3")

    def restarts() -> list[int]:
        """Return where the time begins again: the first run may have sent one more at its end."""
        steps = enumerate(pairwise(cpu_times(slot)), 1)
        return [number for number, (earlier, later) in steps if later < earlier]

    await slot.holds(lambda: bool(restarts()))
    second_run = time.monotonic() - began
    slot.write("go", "")
    assert (await slot.wait()).kind is EndKind.FINISHED
    times, (count, *_) = cpu_times(slot), restarts()
    assert all(later - earlier >= 0.3 for earlier, later in pairwise([0.0, *times[:count]]))
    assert times[count - 1] <= first_run
    assert 0.3 <= times[count] <= second_run  # the program started again


NO_TIME_YET = """
import os, time
from boincvm import stopwatch
begin = time.monotonic()
stopwatch.monotonic = lambda: time.monotonic() if os.path.exists("passes") else begin
"""
"""For `HostSlot.patched`: no running time passes until the slot has a file `passes`, however late
the test suspends the task."""


@pytest.mark.parametrize("script", ["sleep 1000", "trap '' TERM; while :; do sleep 0.1; done"])
async def test_the_time_limit(slot: HostSlot, script: str) -> None:
    """Reaching it counts as success; time while the task is suspended does not count."""
    slot.job(
        task(f"echo begin; {script}", OUT, "<time_limit>0.6</time_limit>"), task("echo next", OUT)
    )
    slot.patched(f"{SHORTENED}\n{NO_TIME_YET}")
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    await slot.suspend()
    slot.write("passes", "")
    for _ in range(12):
        await slot.status()
    assert slot.text("out") == "begin\n"
    assert slot.of_tasks()
    slot.send(Control.RESUME)
    end = await slot.wait()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert slot.text("out") == "begin\nnext\n"
    assert "/bin/sh reached its time limit of 0.6 s" in slot.stderr


async def test_what_a_graphics_program_reads(slot: HostSlot) -> None:
    slot.job(task(f"echo begin; {until('go')}", OUT), more="<enable_graphics_support/>")
    await slot.begin()
    await slot.wait_for_text("graphics_status.xml", "<suspended>0</suspended>", "<elapsed_time>")
    await slot.suspend()
    await slot.wait_for_text("graphics_status.xml", "<suspended>1</suspended>")
    slot.send(Control.RESUME)
    slot.write("go", "")
    assert (await slot.wait()).kind is EndKind.FINISHED
    assert "<fraction_done>1.0" in slot.text("graphics_status.xml")
    assert slot.left() == {"job.xml", "out", "go", "graphics_status.xml"}


SOME = BURN.replace("400000", "60000")
"""More than 0.02 s of computing, and short of the 5 s of an abort on any host."""
SAVES = f"trap '{SOME}; date > saved; exit 3' TERM; echo up; {SOME}; while :; do sleep 0.01; done"
"""Computes while it runs, and some more when it is asked to end, after which it has saved."""
AS_AT_A_QUIT = "from boincvm.host import supervised; supervised.ABORT_GRACE = supervised.GRACE"
"""For `HostSlot.patched`: time enough to save on a busy host, too."""
FAILS = f"echo up; {BURN}; exit 3"


@pytest.mark.parametrize(
    ("script", "word", "saves"),
    [
        (FAILS, None, False),
        (SAVES, Control.QUIT, True),
        (SAVES, signal.SIGTERM, True),
        (SAVES, Control.ABORT, True),
        (f"{SAVES} #", "limit", True),
    ],
)
async def test_the_last_report_has_all(
    tmp_path: Path, script: str, word: Control | signal.Signals | str | None, saves: bool
) -> None:
    """This holds however the task ends, and if the client has read nothing since the start."""
    async with HostSlot(tmp_path, period=4) as slot:
        slot.patched(AS_AT_A_QUIT)
        limit = "<time_limit>1</time_limit>" if word == "limit" else ""
        saved = "<checkpoint_filename>saved</checkpoint_filename>"
        slot.job(task(script, OUT, saved, limit), task("exit 3"))
        await slot.begin()
        await slot.wait_for_text("out", "up")
        if isinstance(word, Control):
            slot.send(word)
        elif isinstance(word, signal.Signals):
            slot.kill(word)
        await slot.wait()
        output = re.search(r"reported: ([0-9.]+) s", slot.stderr)
        assert output is not None
        status = slot.statuses[-1].value
        assert status.cpu_time == pytest.approx(float(output[1]), abs=0.06)
        assert status.cpu_time > 0.02
        if saves:
            assert status.checkpoint_cpu_time > 0.02
        else:
            assert status.checkpoint_cpu_time == 0
