"""Copies of one machine that resume from its disk share no random number, however they resume; the
clock and the host name are right before a program runs. A program reads /dev/urandom all the time
(fresh_program.py). Golden starts are in test_golden.py."""

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from boincvm.machine.spec import clone_identity_for
from support.booted import LIMIT, Listener, booted, restored, spec_in, through_a_file
from support.controller.controlled import Controlled, controlled
from support.fresh_program import SCRIPT, Report, check_copies

pytestmark = pytest.mark.timeout(250)

ON_DISK = 3.0
"""Seconds that a machine lies on the disk at least. Its program tells by its clock that it did, and
on a busy host the clock that it is given is some tenths of a second late."""


@pytest.mark.parametrize("hold", [True, False])
async def test_a_checkpoint_from_which_two_go_on(
    base_image: Path, tmp_path: Path, *, hold: bool
) -> None:
    """Resume twice from one checkpoint.

    `hold`: as with snapshots and a machine's last checkpoint; without it as with the regular ones,
    during which programs keep running: then the agent runs before them.
    """
    spec, listener = spec_in(tmp_path / "machine", base_image), Listener()
    async with booted(spec) as (machine, link):
        program = listener.start(link, SCRIPT)
        await listener.until(lambda: b"begun\n" in listener.output["stdout"])
        await link.quiesce(LIMIT, hold=hold)
        states = through_a_file(link.state()), through_a_file(program.state())
        checkpoint = await machine.checkpoint(1)
        link.close()
        await machine.stop()
        await asyncio.sleep(ON_DISK)
        copies = []
        for _ in range(2):
            again = Listener()
            async with restored(spec, states[0], checkpoint) as (machine, link):
                program = again.attach(link, states[1])
                await link.attach(LIMIT, clone_identity_for(spec), machine.resume)
                async with asyncio.timeout(LIMIT):
                    assert (await program.wait()).code == 0
            copies.append(Report("begun\n" + again.output["stdout"].decode()))
    check_copies(*copies, spare=0 if hold else 1)


async def ended(asked: Controlled, vm: str) -> Report:
    """Wait until the program in the restored machine has written to a file."""
    script = "until [ -s done ]; do sleep 0.1; done; cat out"
    ((code, text),) = (await asked.run(vm, "sh", "-c", script)).values()
    assert code == 0
    return Report(text)


async def begin(asked: Controlled, vm: str) -> None:
    await asked("create", name=vm, memory="256M")
    await asked.outcome("start", vm)
    script = 'python3 -u -c "$0" >out; echo >done'
    await asked.begin(vm, "sh", "-c", script, SCRIPT)
    await asked.run(vm, "sh", "-c", "until grep -q begun out; do sleep 0.1; done")


async def test_snapshots_of_the_controller(base_image: Path, tmp_path: Path) -> None:
    """One is restored twice, while the controller runs and after its machine was stopped."""
    async with controlled(tmp_path / "c") as asked:
        await begin(asked, "fold.1")
        await asked.outcome("snapshot_take", "fold.1", name="s")
        await asyncio.sleep(ON_DISK)
        copies = []
        for _ in range(2):
            await asked.outcome("snapshot_restore", "fold.1", name="s")
            copies.append(await ended(asked, "fold.1"))
            assert abs(copies[-1].clock - time.time()) < 60
        check_copies(*copies)
        assert {copy.host_name for copy in copies} == {"fold-1"}
        await asked.outcome("power_off", "fold.1")
        await asked.outcome("snapshot_restore", "fold.1", name="s")
        check_copies(copies[0], await ended(asked, "fold.1"))


async def test_a_machine_that_was_suspended_to_disk(base_image: Path, tmp_path: Path) -> None:
    """Its files are copied, as for a move to two hosts."""
    directory = tmp_path / "c"
    async with controlled(directory, ends_all=False) as asked:
        await begin(asked, "a")
        await asked.outcome("save", "a")
    copies = []
    for name in ("first", "second"):
        shutil.copytree(directory, tmp_path / name)
        async with controlled(tmp_path / name) as asked:
            await asked.outcome("start", "a")
            copies.append(await ended(asked, "a"))
    check_copies(*copies)
    shutil.rmtree(directory)
