"""`boincvm-wrapper` with tasks in a real machine, under the fake client."""

import itertools
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from support.host_delays import host_delays, within
from support.slot import LIMIT, Slot, cpu_ticks

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("base_image")]


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    async with Slot(tmp_path, period=0.25) as slot:
        yield slot
        left = [path.name for path in slot.path.iterdir() if "machine" in path.name]
        if slot.text("boinc_finish_called"):
            assert left == []


async def test_files_arguments_and_steps_of_one_machine(slot: Slot) -> None:
    slot.write("in.txt", "hello\n")
    slot.script("app.sh", 'echo "$@"; cat; cat init_data.xml >&2; echo made > result.txt')
    slot.job(
        "<application>app.sh</application><virtualmachine>vm</virtualmachine>"
        "<copy_app_to_VM>1</copy_app_to_VM><command_line>one 'two three' $PWD</command_line>"
        "<stdin_filename>in.txt</stdin_filename><stdout_filename>out</stdout_filename>"
        "<setenv>A=$NTHREADS</setenv><copy_file_from_VM>result.txt</copy_file_from_VM>",
        "<application>sh</application><virtualmachine>vm</virtualmachine>"
        "<command_line>-c 'cat result.txt; nproc'</command_line>"
        "<stdout_filename>out</stdout_filename>",
    )
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert slot.text("out") == "one two three /work\nhello\nmade\n1\n"
    assert slot.text("result.txt") == "made\n"
    assert "<wu_name>" in slot.stderr
    assert "authenticator" not in slot.stderr
    assert "CPU time: guest" in slot.stderr
    assert slot.text("wrapper_checkpoint.txt").startswith("2 ")


async def test_what_the_program_says_reaches_the_client(slot: Slot) -> None:
    slot.machine_job(
        "echo fraction-done 0.25 >$BOINCVM_STATUS_CHANNEL\n"
        "echo operations 1e9 2e9 >$BOINCVM_STATUS_CHANNEL\n"
        "echo hello > message; echo trickle-up greeting $PWD/message >$BOINCVM_STATUS_CHANNEL\n"
        "echo part > part.txt; echo upload part.txt >$BOINCVM_STATUS_CHANNEL\n"
        "while [ ! -e boinc_ufs_part.txt ]; do sleep 0.1; done; cat boinc_ufs_part.txt\n"
        "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done\n"
        "echo finish 0 0 all is well >$BOINCVM_STATUS_CHANNEL",
        "<copy_file_from_VM>part.txt</copy_file_from_VM>",
    )
    await slot.begin()
    await slot.holds(lambda: bool(slot.upload_requests))
    assert slot.text("part.txt") == "part\n"
    slot.set_upload_status("part.txt", 0)
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert "all is well" in end.text
    assert "<status>0</status>" in slot.text("out")
    assert ["hello" in output.value for output in slot.trickle_ups] == [True], slot.stderr
    statuses = [output.value for output in slot.statuses]
    assert any(status.fraction_done == 0.25 for status in statuses)
    assert any(status.floating_operations == 1e9 for status in statuses)
    assert any(status.other_pid and status.resident for status in statuses)
    assert max(status.cpu_time for status in statuses) > 0


async def test_the_client_gets_the_cpu_time_each_second(slot: Slot) -> None:
    slot.machine_job(
        "echo begin; end=$(($(date +%s) + 9)); while [ $(date +%s) -lt $end ]; do :; done"
    )
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    begin = time.monotonic()
    with host_delays() as delays:
        end = await slot.wait(LIMIT)
    assert end.kind is EndKind.FINISHED, slot.stderr
    times = [
        (output.at, output.value.cpu_time) for output in slot.statuses if output.value.cpu_time > 0
    ]
    news = [at for (at, now), (_, before) in zip(times[1:], times, strict=False) if now > before]
    received = [begin, times[0][0], *news]
    gaps = [later - earlier for earlier, later in itertools.pairwise(received)]
    assert max(gaps) - delays.seconds < 3, gaps
    assert len(news) + delays.seconds >= 6


async def test_an_earlier_tasks_message_is_not_the_jobs(slot: Slot) -> None:
    slot.machine_job("echo finish 0 0 the first is well >$BOINCVM_STATUS_CHANNEL")
    first = slot.text("job.xml").removeprefix("<job_desc>").removesuffix("</job_desc>")
    slot.write("job.xml", f"<job_desc>{first}{first.replace('app.sh', 'second.sh')}</job_desc>")
    slot.script("second.sh", "echo second")
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert slot.text("out") == "second\n"
    assert end.text == ""


async def test_a_failing_program(slot: Slot) -> None:
    slot.machine_job("echo so it goes >&2; exit 3")
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FAILED, 195), slot.stderr
    assert "exit code 3" in end.text
    assert "so it goes" in slot.stderr


async def test_suspended_means_paused(slot: Slot) -> None:
    slot.machine_job("while :; do :; done")
    await slot.begin()
    await slot.holds(lambda: bool(slot.statuses) and slot.statuses[-1].value.cpu_time > 0)
    (pid,) = slot.machines()
    for _ in range(3):
        slot.send(Control.SUSPEND)
        await slot.holds(lambda: not slot.control.is_full)
        await stands_still(slot, pid)
        goal = cpu_ticks(pid) + 20
        slot.send(Control.RESUME)
        await slot.holds(partial(uses_cpu, pid, goal))
    slot.send(Control.SUSPEND)
    await stands_still(slot, pid)
    slot.send(Control.ABORT)
    with within(5):
        end = await slot.wait(LIMIT)
    assert end.kind is EndKind.ABORTED, slot.stderr


async def reports(slot: Slot, count: int) -> None:
    """Wait for that many reports of the wrapper: here a second has four."""
    goal = len(slot.statuses) + count
    await slot.holds(lambda: len(slot.statuses) >= goal)


def uses_cpu(pid: int, ticks: int) -> bool:
    return cpu_ticks(pid) > ticks


async def stands_still(slot: Slot, pid: int) -> None:
    """Wait until the process has used no CPU for some ticks of the client."""
    seen: list[int] = []

    def still() -> bool:
        seen.append(cpu_ticks(pid))
        return len(seen) > 3 and seen[-1] - seen[-4] <= 1

    await slot.holds(still)


def last_time(slot: Slot) -> float:
    """Return the guest's clock, in seconds, in the last line that it has written."""
    complete, _, _ = slot.text("out").rpartition("\n")
    return int(complete.split()[-1]) / 1000


async def test_throttled_every_second_it_ends_with_the_right_clock(slot: Slot) -> None:
    """Suspend and resume as a client that may use half of the processor's time."""
    slot.machine_job(
        "i=0; while [ ! -e stop ]; do i=$((i+1)); echo $i $(date +%s%3N); sleep 0.05; done"
    )
    await slot.begin()
    await slot.wait_for_text("out", "\n5 ")
    for _ in range(5):
        slot.send(Control.SUSPEND)
        await reports(slot, 4)
        slot.send(Control.RESUME)
        await reports(slot, 4)
    # Five seconds late without the clock's being set, and for ever; its last line may be late, too.
    await slot.holds(lambda: time.time() - last_time(slot) < 1)
    lines = [int(line.split()[0]) for line in slot.text("out").split("\n")[:-1]]
    assert lines == list(range(1, len(lines) + 1))
    slot.send(Control.ABORT)
    with within(5):
        await slot.wait(LIMIT)


async def test_tasks_of_the_host_and_of_machines_in_one_job(slot: Slot) -> None:
    """It has all of VMWrapper's kinds of tasks: the manager runs as long as the machine may."""
    slot.script("prepare.sh", "echo prepared > in.txt")
    slot.script("manager.sh", "echo up > manager; trap 'echo down > manager; exit' TERM; "
                "while :; do sleep 0.1; done")  # fmt: skip
    slot.script("before.sh", "until grep -q up manager; do sleep 0.1; done; cat manager >> log")
    slot.script("app.sh", "cat in.txt; echo made > result.txt")
    slot.script("after.sh", "cat result.txt manager >> log")
    slot.job(
        "<application>before.sh</application>",
        "<application>app.sh</application><virtualmachine>vm</virtualmachine>"
        "<copy_app_to_VM>1</copy_app_to_VM><copy_file_to_VM>in.txt</copy_file_to_VM>"
        "<stdout_filename>out</stdout_filename><copy_file_from_VM>result.txt</copy_file_from_VM>",
        "<application>after.sh</application>",
        more="<unzip_task><application>prepare.sh</application></unzip_task>"
        "<VMmanage_task><application>manager.sh</application></VMmanage_task>",
    )
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert slot.text("out") == "prepared\n"
    assert slot.text("log").endswith("up\nmade\ndown\n")


async def test_a_trickle_down_reaches_the_program(slot: Slot) -> None:
    slot.machine_job("echo begin; while ! ls | grep trickle_down; do sleep 0.1; done; cat *down*")
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    slot.send_trickle_down("<hello/>")
    end = await slot.wait(LIMIT)
    assert end.kind is EndKind.FINISHED, slot.stderr
    assert "<hello/>" in slot.text("out")


async def test_a_program_that_wants_to_be_started_later(slot: Slot) -> None:
    slot.machine_job(
        "echo temporary-exit 1234 1 no licence is free > $BOINCVM_STATUS_CHANNEL; exit 0"
    )
    end = await slot.run()
    assert (end.kind, end.delay, end.notice) == (EndKind.TEMPORARY_EXIT, 1234, True), slot.stderr
    assert "no licence is free" in end.text


async def test_a_guest_writes_no_file_that_is_not_its_output(slot: Slot) -> None:
    """In particular none that the host would run."""
    slot.script("precious", "echo mine")
    slot.machine_job(
        "for name in precious job.xml ../precious; do"
        " echo upload $name >$BOINCVM_STATUS_CHANNEL; done;"
        " echo theirs > precious; echo theirs > job.xml; sleep 1"
    )
    before = slot.text("precious"), slot.text("job.xml")
    end = await slot.run()
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert (slot.text("precious"), slot.text("job.xml")) == before
    assert "precious is not a <copy_file_from_VM> of the task" in slot.stderr
    assert slot.upload_requests == []
