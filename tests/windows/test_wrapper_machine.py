"""The wrapper on Windows, run by a fake client: a task in a machine of Windows' QEMU."""

import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind, FakeSlot
from boincvm.host import win32_windows as win32
from boincvm.host.process_tree import descendants
from boincvm.wrapper.control_socket import ask_for_checkpoint
from support.windows.main_program import install_main_program
from support.windows.packed_qemu import PACKED_QEMU
from support.windows.slot import Slot, stands_still

assert sys.platform == "win32"

pytestmark = pytest.mark.machines

LIMIT = 240.0
# Counts until a message of the server's comes.
COUNT = """
echo "$1"
i=0
while ! ls | grep -q trickle_down; do i=$((i+1)); echo $i; sleep 0.2; done
cat *trickle_down* > result.txt
"""
TASK = (
    "<application>sh</application><virtualmachine>vm</virtualmachine>"
    "<command_line>count.sh 'zwei Wörter'</command_line>"
    "<copy_file_to_VM>count.sh</copy_file_to_VM>"
    "<stdout_filename>out</stdout_filename><copy_file_from_VM>result.txt</copy_file_from_VM>"
)


class MachineSlot(Slot):
    """A slot whose job runs COUNT in a machine."""

    limit = LIMIT

    async def counts_on(self) -> None:
        """Wait until the program has written two more lines: at least one was begun meanwhile."""
        for _ in range(2):
            await self.grows("out")

    @contextmanager
    def all_end(self) -> Iterator[None]:
        """Assert that QEMU, which runs now, and all else of the wrapper's ends in the block."""
        handles = [
            win32.open_process_handle(pid, win32.SYNCHRONIZE)
            for pid in (self.pid, *descendants(self.pid))
        ]
        try:
            assert len(handles) > 1
            assert not any(map(win32.has_ended, handles))
            yield
            assert all(win32.has_ended(handle, int(LIMIT * 1000)) for handle in handles)
        finally:
            for handle in handles:
                win32.close(handle)

    def machine_files(self) -> list[str]:
        return [path.name for path in self.slot.path.glob("boincvm-machine-*")]


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[MachineSlot]:
    # No checkpoint but those that are asked for, however slow the host is.
    period = {"checkpoint_period": 1e6}
    async with MachineSlot(tmp_path / "a client", period=0.25, init_data=period) as slot:
        (slot.slot.path / "count.sh").write_text(COUNT, newline="\n")
        shutil.copy(os.environ[PACKED_QEMU], slot.slot.path / "qemu.tar.xz")
        slot.write_job(TASK)
        yield slot


async def test_suspended_saved_killed_quit_and_finished(slot: MachineSlot) -> None:
    """It boots once, and resumes twice: after it was killed, and after it was told to quit.

    There is no QEMU but the one in the slot, which is unpacked once.
    """
    await slot.begin()
    await slot.counts_on()
    assert "QEMU of the app version was unpacked" in slot.stderr
    slot.send(Control.SUSPEND)
    await slot.until(lambda: stands_still(slot, "out"), LIMIT)
    slot.send(Control.RESUME)
    await slot.counts_on()

    answer = await ask_for_checkpoint(slot.slot.path, LIMIT)
    assert [one["checkpoint"] for one in machines_of(answer)] == [1]
    await slot.counts_on()
    with slot.all_end():
        slot.kill()
        await slot.wait(LIMIT)

    await slot.begin()
    await slot.counts_on()
    with slot.all_end():
        slot.send(Control.QUIT)
        assert (await slot.wait(LIMIT)).kind is EndKind.QUIT, slot.stderr
    assert "sleeps on disk" in slot.stderr

    await slot.begin()
    await slot.counts_on()
    slot.send_trickle_down("<done/>")
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    title, *numbers = slot.text("out").splitlines()
    assert title == "zwei Wörter"
    assert numbers == [str(number + 1) for number in range(len(numbers))]
    assert slot.text("result.txt") == "<done/>"
    assert slot.machine_files() == []
    assert str(slot.slot.directory) not in slot.stderr


async def test_of_an_app_version_that_brings_all_aborted_while_it_is_suspended(
    slot: MachineSlot,
) -> None:
    """Nothing but an image has to be there: the main program brings boincvm and its Python."""
    bring_all(slot.slot)
    await slot.start([install_main_program(slot.slot)])
    await slot.counts_on()
    assert "boincvm was unpacked" in slot.stderr
    slot.send(Control.SUSPEND)
    await slot.until(lambda: stands_still(slot, "out"), LIMIT)
    with slot.all_end():
        slot.send(Control.ABORT)
        end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.ABORTED, 194), slot.stderr
    assert slot.machine_files() == []


def bring_all(slot: FakeSlot) -> None:
    """Make the files of a slot ones of the app version."""
    for name in ("job.xml", "qemu.tar.xz"):
        (slot.path / name).rename(slot.project / name)
        slot.link(name, name)
        slot.app_files.append(name)


def machines_of(answer: dict[str, object]) -> list[dict[str, object]]:
    machines = answer["machines"]
    assert isinstance(machines, list)
    return machines
