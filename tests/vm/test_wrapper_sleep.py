"""A machine that the wrapper puts to sleep on disk, and wakes in another run."""

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from slot import LIMIT, Slot

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind

pytestmark = [pytest.mark.timeout(280), pytest.mark.usefixtures("base_image")]

COUNT = 'i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo "line $i"; sleep 0.1; done'
LINES = "".join(f"line {i}\n" for i in range(1, 61))
SAVED = "boincvm-machine-0/saved.json"


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    async with Slot(tmp_path, period=0.25) as slot:
        yield slot


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
    slot.machine_job(COUNT)
    await slot.begin()
    await slot.says("out", "line 10\n")
    if suspended:
        slot.send(Control.SUSPEND)
    await quits(slot)
    assert slot.text(SAVED)
    assert "wrapper_checkpoint.txt" in [path.name for path in slot.path.iterdir()]
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == LINES  # no line lost, none twice


async def test_input_goes_on_too(slot: Slot) -> None:
    numbers = "".join(f"{i}\n" for i in range(40000))
    slot.write("in.txt", numbers)
    slot.machine_job(
        "i=0; while read -r line; do echo $line; i=$((i+1));"
        " if [ $i = 200 ]; then sleep 3; fi; done",
        "<stdin_filename>in.txt</stdin_filename>",
    )
    await slot.begin()
    await slot.says("out", "150\n")
    await quits(slot)
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == numbers


async def test_what_was_written_after_the_sleep_is_written_once(slot: Slot) -> None:
    """The wrapper is killed some time after it has woken the machine: it sleeps still."""
    slot.machine_job(COUNT)
    await slot.begin()
    await slot.says("out", "line 5\n")
    await quits(slot)
    await slot.begin()
    await slot.says("out", "line 40\n")
    slot.kill(signal.SIGKILL)
    await slot.wait(LIMIT)
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == LINES


async def test_a_service_manager_that_stops_everything(slot: Slot) -> None:
    """SIGTERM to the wrapper and to its hypervisor alike, as when a computer is shut down."""
    slot.machine_job(COUNT)
    await slot.begin()
    await slot.says("out", "line 10\n")
    for pid in (*slot.machines(), slot.pid):
        os.kill(pid, signal.SIGTERM)
    end = await slot.wait(50)
    assert (end.kind, end.status) == (EndKind.PREMATURE, 0), slot.stderr
    assert "told to end by SIGTERM" in slot.stderr
    assert slot.machines() == []
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == LINES


@pytest.mark.parametrize(
    "damage", ["not json", "", '{"version": 99}', '{"version": 1, "task": null}', "[1]"]
)
async def test_a_damaged_sleep_is_not_fatal(slot: Slot, damage: str) -> None:
    slot.machine_job("echo begin; sleep 2; echo end")
    await slot.begin()
    await slot.says("out", "begin")
    await quits(slot)
    slot.write(SAVED, damage)
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == "begin\nbegin\nend\n"
    assert "cannot be used" in slot.stderr


async def test_a_truncated_disk_is_not_fatal(slot: Slot) -> None:
    slot.machine_job("echo begin; sleep 2; echo end")
    await slot.begin()
    await slot.says("out", "begin")
    await quits(slot)
    os.truncate(slot.path / "boincvm-machine-0" / "overlay.qcow2", 1 << 16)
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == "begin\nbegin\nend\n"


async def test_another_job_does_not_wake_it(slot: Slot) -> None:
    slot.machine_job("echo begin; sleep 2; echo end")
    await slot.begin()
    await slot.says("out", "begin")
    await quits(slot)
    saved = json.loads(slot.text(SAVED))
    saved["shape"]["memory"] *= 2
    slot.write(SAVED, json.dumps(saved))
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == "begin\nbegin\nend\n"


async def test_the_first_step_s_work_is_kept_in_the_second(slot: Slot) -> None:
    slot.script("first.sh", "echo precious > kept")
    slot.script("second.sh", "echo begin; sleep 2; cat kept")
    vm = "<virtualmachine>vm</virtualmachine><copy_app_to_VM>1</copy_app_to_VM>"
    slot.job(
        f"<application>first.sh</application>{vm}",
        f"<application>second.sh</application>{vm}<stdout_filename>out</stdout_filename>",
    )
    await slot.begin()
    await slot.says("out", "begin")
    await quits(slot)
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == "begin\nprecious\n"


async def test_a_lost_machine_takes_its_steps_along(slot: Slot) -> None:
    slot.script("first.sh", "echo first; echo precious > kept")
    slot.script("second.sh", "echo begin; sleep 1; cat kept")
    vm = (
        "<virtualmachine>vm</virtualmachine><copy_app_to_VM>1</copy_app_to_VM>"
        "<stdout_filename>out</stdout_filename>"
    )
    slot.job(*(f"<application>{name}.sh</application>{vm}" for name in ("first", "second")))
    await slot.begin()
    await slot.says("out", "begin")
    slot.kill(signal.SIGKILL)
    await slot.wait(LIMIT)
    await slot.begin()
    await finishes(slot)
    assert slot.text("out") == "first\nbegin\nfirst\nbegin\nprecious\n"


async def test_a_checkpoint_that_the_program_asked_for(slot: Slot) -> None:
    """The machine goes on after it, and a killed wrapper loses only what came later."""
    slot.machine_job(
        'i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo "line $i"; sleep 0.1;'
        " if [ $i = 10 ]; then echo checkpoint-wanted > $BOINCVM_VOICE; fi; done"
    )
    await slot.begin()
    await slot.says("out", "line 25\n")
    assert "is kept on disk" in slot.stderr
    statuses = [said.value for said in slot.statuses]
    assert statuses[-1].checkpoint_cpu_time > 0
    slot.kill(signal.SIGKILL)
    await slot.wait(LIMIT)
    written = len(slot.text("out").splitlines())
    await slot.begin()
    await slot.holds(lambda: 0 < len(slot.text("out").splitlines()) < written)
    await finishes(slot)
    assert slot.text("out") == LINES


@pytest.mark.parametrize("kill", [False, True])
async def test_an_end_in_the_middle_of_a_checkpoint(slot: Slot, *, kill: bool) -> None:
    slot.machine_job(
        'i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo "line $i"; sleep 0.1;'
        " if [ $i = 10 ]; then echo checkpoint-wanted > $BOINCVM_VOICE; fi; done"
    )
    await slot.begin()
    overlay = slot.path / "boincvm-machine-0" / "overlay.qcow2"
    await slot.says("out", "line 5\n")
    before = overlay.stat().st_blocks
    await slot.holds(lambda: overlay.stat().st_blocks > before + 20000)  # it is being written
    if kill:
        slot.kill(signal.SIGKILL)
        await slot.wait(LIMIT)
    else:
        await quits(slot)
    await slot.begin()
    await finishes(slot)
    # What was not kept is done, and written, once more.
    assert slot.text("out").endswith(LINES if not kill else "line 59\nline 60\n")
