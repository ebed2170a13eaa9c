"""The wrapper on Windows, run by a fake client: the tasks are programs of the host."""

import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc import Client, Control, SlotBusyError
from boincvm.boinc.testing import EndKind
from support.windows.host_slot import FAMILY, OUT, HostSlot, family
from support.windows.slot import LIMIT, gone, stands_still

assert sys.platform == "win32"


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[HostSlot]:
    async with HostSlot(tmp_path, period=0.1) as slot:
        slot.install()
        yield slot


async def test_tasks_run_in_their_order(slot: HostSlot) -> None:
    slot.job("print('first')", "print('second')", elements=OUT)
    await slot.begin()
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert slot.text("out").splitlines() == ["first", "second"]
    assert not (slot.slot.path / "boinc_lockfile").exists()


async def test_an_archive_is_unpacked_and_the_outputs_are_packed(slot: HostSlot) -> None:
    with zipfile.ZipFile(slot.slot.path / "in.zip", "w") as archive:
        archive.writestr("data/number", "6")
    program = "print(7 * int(open('data/number').read()), file=open('answer', 'w'))"
    zips = "<{0}><zipfilename>{1}</zipfilename>{2}</{0}>".format
    pattern = "<filename>answer</filename>"
    slot.job(
        program, more=zips("unzip_input", "in.zip", "") + zips("zip_output", "out.zip", pattern)
    )
    await slot.begin()
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.FINISHED, 0), slot.stderr
    assert not (slot.slot.path / "in.zip").exists()
    with zipfile.ZipFile(slot.slot.path / "out.zip") as archive:
        assert archive.read("answer").split() == [b"42"]


async def test_a_program_that_fails(slot: HostSlot) -> None:
    slot.job("raise SystemExit(3)")
    await slot.begin()
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.FAILED, 195), slot.stderr
    assert "exit code 3" in end.text
    assert str(slot.slot.directory) not in slot.stderr


async def test_suspended_resumed_quit_restarted_and_aborted(slot: HostSlot) -> None:
    """What the program has started is suspended, too, and nothing of it outlives the wrapper."""
    slot.job(FAMILY, elements=OUT)
    await slot.begin()
    await slot.grows("out")
    slot.send(Control.SUSPEND)
    await slot.until(lambda: stands_still(slot, "out"), LIMIT)
    slot.send(Control.RESUME)
    await slot.grows("out")
    slot.send(Control.QUIT)
    assert (await slot.wait(LIMIT)).kind is EndKind.QUIT, slot.stderr
    assert all(map(gone, family(slot)))
    (slot.slot.path / "out").unlink()
    await slot.begin()
    await slot.grows("out")
    slot.send(Control.ABORT)
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.ABORTED, 194), slot.stderr
    assert all(map(gone, family(slot)))


async def test_nothing_outlives_a_wrapper_that_is_killed(slot: HostSlot) -> None:
    slot.job(FAMILY, elements=OUT)
    await slot.begin()
    await slot.grows("out")
    busy = Client.open(slot.slot.path, lock_wait=0)
    with pytest.raises(SlotBusyError):
        await busy
    slot.kill()
    await slot.wait(LIMIT)
    assert all(map(gone, family(slot)))
    free = await Client.open(slot.slot.path, lock_wait=LIMIT)
    assert not free.is_standalone
    free.close()
