"""The main program of an app version on Windows, run by a fake client: it becomes the wrapper."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from support.windows.host_slot import FAMILY, OUT, HostSlot, family
from support.windows.main_program import install_main_program
from support.windows.slot import LIMIT, gone, stands_still

assert sys.platform == "win32"

pytestmark = pytest.mark.main_program


class VolunteersSlot(HostSlot):
    """A slot of an app version that brings boincvm."""

    def install(self) -> None:
        """Make the app version's files."""
        super().install()
        self.slot.app_files.append("python.exe")
        self._program = install_main_program(self.slot)

    async def begin(self) -> None:
        """Start the main program."""
        await self.start([self._program])


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[VolunteersSlot]:
    async with VolunteersSlot(tmp_path / "a client of Jörg", period=0.1) as slot:
        slot.install()
        yield slot


async def test_suspended_resumed_killed_and_aborted(slot: VolunteersSlot) -> None:
    slot.job(FAMILY, elements=OUT)
    await slot.begin()
    await slot.grows("out")
    slot.send(Control.SUSPEND)
    await slot.until(lambda: stands_still(slot, "out"), LIMIT)
    slot.send(Control.RESUME)
    await slot.grows("out")
    slot.kill()
    await slot.wait(LIMIT)
    assert all(map(gone, family(slot)))

    (slot.slot.path / "out").unlink()
    await slot.begin()
    await slot.grows("out")
    slot.send(Control.ABORT)
    end = await slot.wait(LIMIT)
    assert (end.kind, end.status) == (EndKind.ABORTED, 194), slot.stderr
    assert all(map(gone, family(slot)))
    assert slot.stderr.count("boincvm was unpacked") == 1
    assert str(slot.slot.directory) not in slot.stderr
