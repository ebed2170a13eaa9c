"""A slot on a full disk: the task is postponed and the volunteer informed; no false success."""

import os
import subprocess
from pathlib import Path

import pytest

from boincvm.boinc.testing import End, EndKind, classify_exit
from support.host_slot import HostSlot, task
from support.slot import WRAPPER

pytestmark = pytest.mark.timeout(90)

OUT = "<stdout_filename>out</stdout_filename>"
FILL = "cat /dev/zero 2>/dev/null > filler; true"
STATE = '{"version": 1, "tasks_done": 1, "failures": 0, "guest": 1, "host": 1, "wall": 1}'
ZIP = "<zip_output><zipfilename>o.zip</zipfilename><filename>result</filename></zip_output>"

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
ON_SMALL_DISK = """
slot=$1; shift
mount -t tmpfs -o size=256k tmpfs small && cp -a "$slot/." small && cd small || exit 99
if [ -e fill ]; then rm fill; cat /dev/zero 2>/dev/null > filler; fi
"$@" 2>>stderr.txt
status=$?
rm -f filler
cp -a . "$slot" && exit $status
"""
"""The files of the slot, the first argument, are copied there and, in the end, back."""


def full_at_will(module: str) -> str:
    """Make the module fail to write while the slot has a file `full`."""
    return f"""
import errno, os, {module} as module
def write(*arguments, original=module.write_atomically):
    if os.path.exists("full"):
        raise OSError(errno.ENOSPC, "No space left on device")
    original(*arguments)
module.write_atomically = write
"""


def can_unshare() -> bool:
    return subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(
    not can_unshare(), reason="this host lets its users make no namespaces, so no small disk"
)


def run_on_small_disk(slot: HostSlot, tmp_path: Path) -> End:
    (tmp_path / "small").mkdir(exist_ok=True)
    command = [*UNSHARE, "sh", "-c", ON_SMALL_DISK, "sh", str(slot.path), *WRAPPER]
    status = subprocess.run(command, cwd=tmp_path, timeout=30, check=False).returncode
    assert slot.below() == []
    return classify_exit(slot.path, status, [])


@needs_namespaces
async def test_a_task_that_fills_the_disk(slot: HostSlot, tmp_path: Path) -> None:
    """It succeeds; its success can be neither saved nor, without the room that we make,
    reported."""
    slot.job(task("echo first", OUT), task(FILL), task("echo last > last"))
    end = run_on_small_disk(slot, tmp_path)
    assert (end.kind, end.delay, end.notice) == (EndKind.TEMPORARY_EXIT, 1800, True), slot.stderr
    assert "the host's disk is full" in end.text
    assert slot.text("wrapper_checkpoint.txt").startswith("1 ")
    assert slot.left() == {"job.xml", "out"}


@needs_namespaces
async def test_an_archive_for_which_there_is_no_room(slot: HostSlot, tmp_path: Path) -> None:
    slot.job(task("echo again", OUT), more=ZIP)
    slot.write("wrapper_checkpoint.txt", "1 1.000000 1.000000\n")
    (slot.path / "result").write_bytes(os.urandom(150_000))
    end = run_on_small_disk(slot, tmp_path)
    assert (end.kind, end.notice) == (EndKind.TEMPORARY_EXIT, True), slot.stderr
    assert "o.zip cannot be written: the host's disk is full" in end.text
    assert slot.left() == {"job.xml", "result"}


@needs_namespaces
@pytest.mark.parametrize("has_state", [True, False])
async def test_no_room_to_say_that_it_is_over(
    slot: HostSlot, tmp_path: Path, has_state: bool
) -> None:
    """Without a report the client starts the task again, which has nothing more to do."""
    slot.job(task("echo again", OUT))
    slot.write("wrapper_checkpoint.txt", "1 1.000000 1.000000\n")
    if has_state:
        slot.write("boincvm_state.json", STATE)
    slot.write("fill", "")
    end = run_on_small_disk(slot, tmp_path)
    assert end.kind is (EndKind.FINISHED if has_state else EndKind.PREMATURE)
    await slot.ends_well()
    assert slot.text("out") == ""


async def test_no_room_for_a_checkpoint(slot: HostSlot) -> None:
    slot.patched(full_at_will("boincvm.wrapper.slot.state"))
    wait = "while [ ! -e go ]; do sleep 0.01; done"
    slot.job(
        task(f"echo begin; {wait}", OUT, "<checkpoint_filename>saved</checkpoint_filename>"),
        task("sleep 1000", "<daemon/>"),
    )
    await slot.begin()
    await slot.wait_for_text("out", "begin")
    slot.write("full", "")
    slot.write("saved", "")
    end = await slot.wait()
    assert (end.kind, end.delay, end.notice) == (EndKind.TEMPORARY_EXIT, 1800, True), slot.stderr
    assert "the job's progress could not be saved; free some space" in end.text
    (slot.path / "full").unlink()
    slot.write("go", "")
    await slot.ends_well()


async def test_no_room_for_a_trickle(slot: HostSlot) -> None:
    slot.patched(full_at_will("boincvm.boinc.trickles"))
    slot.write("full", "")
    slot.job(task("sleep 1000"))
    end = await slot.run("--trickle", "0.2")
    assert (end.kind, end.delay, end.notice) == (EndKind.TEMPORARY_EXIT, 1800, True), slot.stderr
