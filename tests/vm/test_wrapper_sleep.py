"""A machine that the wrapper saves to disk and resumes in another run."""

import json
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from support.counting import RESUMED, check_count, counting, lines
from support.slot import LIMIT, Slot

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("base_image")]

MACHINE = "boincvm-machine-0"
COUNTS = counting(RESUMED)
ASKS = counting(
    RESUMED, each="if [ $i = 10 ]; then echo checkpoint-wanted > $BOINCVM_STATUS_CHANNEL; fi"
)


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    async with Slot(tmp_path, period=0.25) as slot:
        yield slot


def manifests(slot: Slot) -> list[Path]:
    """Return the machine's checkpoint manifests, the newest one last."""
    return sorted((slot.path / MACHINE).glob("checkpoint-*.json"))


def number_of(manifest: Path) -> int:
    """Return the checkpoint's number: the first of a booted machine is 1, of a copy 2."""
    return int(manifest.stem.removeprefix("checkpoint-"))


async def quits(slot: Slot) -> None:
    slot.send(Control.QUIT)
    end = await slot.wait(50)
    assert (end.kind, end.status) == (EndKind.QUIT, 0), slot.stderr
    assert slot.machines() == []


async def finishes(slot: Slot) -> None:
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert not (slot.path / "boincvm-machine-0").exists()


@pytest.mark.parametrize("suspended", [False, True])
async def test_a_program_goes_on_where_it_was(slot: Slot, *, suspended: bool) -> None:
    slot.machine_job(COUNTS)
    await slot.begin()
    await slot.wait_for_text("out", "line 10\n")
    if suspended:
        slot.send(Control.SUSPEND)
    await quits(slot)
    assert len(manifests(slot)) == 1
    assert "wrapper_checkpoint.txt" in [path.name for path in slot.path.iterdir()]
    await slot.begin()
    await finishes(slot)
    check_count(slot.text("out"))


async def test_input_goes_on_too(slot: Slot) -> None:
    numbers = "".join(f"{i}\n" for i in range(40000))
    slot.write("in.txt", numbers)
    slot.machine_job(
        "first=$(cat /etc/machine-id); i=0; while read -r line; do echo $line; i=$((i+1));"
        f" if [ $i = 200 ]; then until {RESUMED}; do sleep 0.1; done; fi; done",
        "<stdin_filename>in.txt</stdin_filename>",
    )
    await slot.begin()
    await slot.wait_for_text("out", "150\n")
    await quits(slot)
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == numbers


async def test_what_was_written_after_the_sleep_is_written_once(slot: Slot) -> None:
    """The wrapper is killed some time after it has resumed the machine, which is still saved."""
    slot.machine_job(counting(RESUMED, least=100))
    await slot.begin()
    await slot.wait_for_text("out", "line 5\n")
    await quits(slot)
    stored = slot.text("out").count("\n")
    await slot.begin()
    await slot.holds(lambda: slot.text("out").count("\n") > stored + 5)
    slot.kill(signal.SIGKILL)
    await slot.wait(LIMIT)
    await slot.begin()
    await finishes(slot)
    check_count(slot.text("out"), least=100)


async def test_a_service_manager_that_stops_everything(slot: Slot) -> None:
    """It sends SIGTERM to the wrapper and to its hypervisor, as when a computer is shut down."""
    slot.machine_job(COUNTS)
    await slot.begin()
    await slot.wait_for_text("out", "line 10\n")
    for pid in (*slot.machines(), slot.pid):
        os.kill(pid, signal.SIGTERM)
    end = await slot.wait(50)
    assert (end.kind, end.status) == (EndKind.PREMATURE, 0), slot.stderr
    assert "asked to end by SIGTERM" in slot.stderr
    assert slot.machines() == []
    await slot.begin()
    await finishes(slot)
    check_count(slot.text("out"))


@pytest.mark.parametrize("damage", ["not json", "", '{"schema": 99}', '{"schema": 2}', "[1]"])
async def test_a_damaged_sleep_is_not_fatal(slot: Slot, damage: str) -> None:
    slot.machine_job("echo begin; sleep 1000")
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    await quits(slot)
    manifests(slot)[0].write_text(damage)
    slot.machine_job("echo begin; echo end")
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == "begin\nend\n"
    assert re.search(r"checkpoint \d+ is ", slot.stderr)
    assert "has no usable checkpoint" in slot.stderr


@pytest.mark.parametrize("kind", ["checkpoint-*.json", "memory-*", "disk-*.qcow2"])
async def test_a_flipped_bit_costs_one_checkpoint(slot: Slot, kind: str) -> None:
    """It is in a file that only the newest checkpoint needs; the one before is used."""
    slot.machine_job(ASKS)
    await slot.begin()
    await slot.wait_for_text("stderr.txt", "is kept on disk")
    await quits(slot)
    older, newest = manifests(slot)
    needed = set(json.loads(newest.read_text())["files"]) - set(
        json.loads(older.read_text())["files"]
    )
    path = newest
    if not kind.endswith(".json"):
        path = max(one for one in (slot.path / MACHINE).glob(kind) if one.name in needed)
    flip_a_bit(path)
    await slot.begin()
    await finishes(slot)
    check_count(slot.text("out"))
    assert "is damaged: " in slot.stderr
    assert f"resumes from checkpoint {number_of(older)}, which was made" in slot.stderr


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_a_flipped_bit_in_what_both_need_costs_the_task_s_work(slot: Slot) -> None:
    slot.machine_job(ASKS)
    await slot.begin()
    await slot.wait_for_text("stderr.txt", "is kept on disk")
    await quits(slot)
    flip_a_bit(min((slot.path / MACHINE).glob("memory-*")))
    slot.machine_job(counting("true"))
    await slot.begin()
    await finishes(slot)
    assert slot.text("out").endswith(lines(60))
    assert "has no usable checkpoint" in slot.stderr


async def test_another_job_does_not_wake_it(slot: Slot) -> None:
    slot.machine_job("echo begin; sleep 1000", "<memory_mb>512</memory_mb>")
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    await quits(slot)
    slot.machine_job("echo begin; echo end", "<memory_mb>640</memory_mb>")
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == "begin\nend\n"
    assert "the job now requires a different one" in slot.stderr


async def test_the_first_step_s_work_is_kept_in_the_second(slot: Slot) -> None:
    slot.script("first.sh", "echo precious > kept")
    waits = f"first=$(cat /etc/machine-id); echo begin; until {RESUMED}; do sleep 0.1; done"
    slot.script("second.sh", f"{waits}; cat kept")
    vm = "<virtualmachine>vm</virtualmachine><copy_app_to_VM>1</copy_app_to_VM>"
    slot.job(
        f"<application>first.sh</application>{vm}",
        f"<application>second.sh</application>{vm}<stdout_filename>out</stdout_filename>",
    )
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    await quits(slot)
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == "begin\nprecious\n"


async def test_a_lost_machine_takes_its_steps_along(slot: Slot) -> None:
    slot.script("first.sh", "echo first; echo precious > kept")
    slot.script("second.sh", "echo begin; sleep 1000")
    vm = (
        "<virtualmachine>vm</virtualmachine><copy_app_to_VM>1</copy_app_to_VM>"
        "<stdout_filename>out</stdout_filename>"
    )
    slot.job(*(f"<application>{name}.sh</application>{vm}" for name in ("first", "second")))
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    slot.kill(signal.SIGKILL)
    await slot.wait(LIMIT)
    slot.script("second.sh", "echo begin; cat kept")
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == "first\nbegin\nprecious\n"


async def test_a_checkpoint_that_the_program_asked_for(slot: Slot) -> None:
    """The machine continues after it, and a killed wrapper loses only later work."""
    slot.machine_job(ASKS)
    await slot.begin()
    await slot.wait_for_text("stderr.txt", "is kept on disk")
    await slot.holds(lambda: slot.statuses[-1].value.checkpoint_cpu_time > 0)
    stored = slot.text("out").count("\n")
    await slot.holds(lambda: slot.text("out").count("\n") > stored + 10)
    slot.kill(signal.SIGKILL)
    await slot.wait(LIMIT)
    written = slot.text("out").count("\n")
    await slot.begin()
    await slot.holds(lambda: 0 < slot.text("out").count("\n") < written)
    await finishes(slot)
    check_count(slot.text("out"))


@pytest.mark.parametrize("kill", [False, True])
async def test_an_end_in_the_middle_of_a_checkpoint(slot: Slot, *, kill: bool) -> None:
    slot.machine_job(ASKS)
    await slot.begin()
    machine = slot.path / MACHINE
    await slot.holds(lambda: any(machine.glob("memory-*")))  # it is being written
    if kill:
        slot.kill(signal.SIGKILL)
        await slot.wait(LIMIT)
        slot.machine_job(counting("true"))  # if no checkpoint was kept
    else:
        await quits(slot)
    await slot.begin()
    await finishes(slot)
    # What was not kept is done, and written, once more.
    check_count(slot.text("out"))


@pytest.mark.parametrize("stored", [False, True])
async def test_a_quit_that_cannot_save_says_what_it_costs(slot: Slot, *, stored: bool) -> None:
    """The hypervisor does not answer: the machine returns to its last checkpoint, or starts over,
    and the log reports how much running time is lost."""
    slot.machine_job(ASKS if stored else COUNTS)
    await slot.begin()
    await slot.wait_for_text("out", "line 20\n")
    if stored:
        await slot.wait_for_text("stderr.txt", "is kept on disk")
    (pid,) = slot.machines()
    os.kill(pid, signal.SIGSTOP)
    await quits(slot)
    origin = r"resumes from checkpoint \d+" if stored else "starts over"
    assert re.search(
        rf"the machine vm {origin}: \d+(\.\d)?s of its running time are lost", slot.stderr
    )
    if not stored:
        slot.machine_job(counting("true"))
    await slot.begin()
    await finishes(slot)
    check_count(slot.text("out"))
