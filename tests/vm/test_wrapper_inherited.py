"""What a hypervisor inherits from the client that started its wrapper, and what it does not."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.boinc import Control
from boincvm.paths import data_directory
from support.host_delays import within
from support.slot import LIMIT, WRAPPER, Slot

pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("base_image")]

CLIENT = """
import os, sys
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
os.nice(7)
os.set_inheritable(os.open(sys.argv[1], os.O_RDONLY), True)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""As a client starts an app: idle priority, and a descriptor of its own left open."""


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    async with Slot(tmp_path, period=0.25) as slot:
        yield slot


async def test_a_hypervisor_has_the_priority_and_nothing_else(slot: Slot, tmp_path: Path) -> None:
    secret = tmp_path / "file of the client"
    secret.write_text("open")
    slot.machine_job("echo begin; sleep 1000")
    await slot.start(
        [sys.executable, "-c", CLIENT, secret, *WRAPPER],
        environment={
            "XDG_CACHE_HOME": str(slot.cache),
            "XDG_DATA_HOME": str(data_directory().parent),
        },
    )
    await slot.holds(lambda: bool(slot.machines()))
    (pid,) = slot.machines()
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, slot.pid)
    assert os.getpriority(os.PRIO_PROCESS, pid) >= 7
    assert b"LD_LIBRARY_PATH" in Path(f"/proc/{slot.pid}/environ").read_bytes()
    assert b"LD_LIBRARY_PATH" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert secret in open_files(slot.pid)
    assert secret not in open_files(pid)
    for one in (slot.pid, pid):
        be_like_others(one)  # a busy host would let them do nothing for long
    await slot.wait_for_text("out", "begin")
    slot.send(Control.ABORT)
    with within(5):
        await slot.wait(LIMIT)


def be_like_others(pid: int) -> None:
    """Give the process the usual scheduling."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


def open_files(pid: int) -> set[Path]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has just closed it
            found.add(path.readlink())
    return found
