"""One checkpoint at a time on a host: who waits for it keeps its guest running, and can give up."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import Checkpoint, MachineSpec, MachineState
from boincvm.hypervisor.fake.driver import FakeDriver, FakeMachine
from boincvm.machine import checkpoint_turn
from boincvm.machine.checkpoint_turn import CheckpointTurn, turn_lock
from boincvm.machine.managed import ManagedMachine, opened
from support.file_locks import until_waited_for

pytestmark = pytest.mark.timeout(60)

LIMIT = 20.0
OTHER = """
import asyncio
from boincvm.machine.checkpoint_turn import CheckpointTurn

async def main():
    async with CheckpointTurn().taken():
        print(flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[ManagedMachine]:
    nowhere = tmp_path / "none"
    spec = MachineSpec(tmp_path / "m", nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)
    spec.directory.mkdir()
    async with asyncio.timeout(LIMIT), opened(FakeDriver(), spec) as machine:
        yield machine


def fake(machine: ManagedMachine) -> FakeMachine:
    return cast(FakeMachine, machine.session.machine)


async def save(machine: ManagedMachine, number: int = 1, *, last: bool = False) -> Checkpoint:
    return (await machine.save(number, lambda: None, last=last))[0]


async def waiting_save(machine: ManagedMachine) -> asyncio.Task[Checkpoint]:
    """Begin to save the machine while another one is saved."""
    saving = asyncio.ensure_future(save(machine))
    await until_waited_for(turn_lock(), saving)
    return saving


async def test_the_guest_runs_while_it_waits(machine: ManagedMachine) -> None:
    async with CheckpointTurn().taken():
        saving = await waiting_save(machine)
        assert not fake(machine).guest.is_quiet
        assert fake(machine).state is MachineState.RUNNING
    assert (await saving).number == 1


async def test_a_process_that_is_killed_holds_nobody_up(machine: ManagedMachine) -> None:
    command = (sys.executable, "-c", OTHER)
    other = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert other.stdout is not None
        await other.stdout.readline()
        saving = await waiting_save(machine)
    finally:
        other.kill()
        await other.wait()
    assert (await saving).number == 1


async def test_a_suspended_machine_does_not_wait(machine: ManagedMachine) -> None:
    async with CheckpointTurn().taken():
        saving = await waiting_save(machine)
        await machine.suspend()
        assert fake(machine).state is MachineState.PAUSED
        with pytest.raises(HypervisorError, match="another machine: the machine is suspended"):
            await saving
    assert fake(machine).state is MachineState.PAUSED


async def test_the_last_save_does_not_wait(machine: ManagedMachine) -> None:
    async with CheckpointTurn().taken():
        saving = await waiting_save(machine)
        assert (await save(machine, 2, last=True)).number == 2
        with pytest.raises(HypervisorError, match="saved for the last time"):
            await saving
    assert machine.is_saved


@pytest.mark.parametrize("way", ["kill", "close"])
async def test_a_machine_that_is_ended_does_not_wait(machine: ManagedMachine, way: str) -> None:
    async with CheckpointTurn().taken():
        saving = await waiting_save(machine)
        await (machine.kill() if way == "kill" else machine.close())
        with pytest.raises(HypervisorError, match="the machine is ended"):
            await saving


async def test_it_is_given_up_twice(machine: ManagedMachine) -> None:
    """That includes the moment in which the waiting save has not noticed the first one."""
    async with CheckpointTurn().taken():
        saving = await waiting_save(machine)
        while not saving.done():
            machine.give_up_turn("the machine is suspended")
            await asyncio.sleep(0)
        with pytest.raises(HypervisorError, match="the machine is suspended"):
            await saving


async def test_one_who_gave_up_keeps_nobody_waiting(machine: ManagedMachine) -> None:
    async with CheckpointTurn().taken():
        for _ in range(2):
            saving = await waiting_save(machine)
            saving.cancel()
            await asyncio.gather(saving, return_exceptions=True)
        await waiting_save(machine)
        await machine.suspend()
    await machine.resume()
    assert (await save(machine)).number == 1


async def test_a_suspended_machine_that_is_saved_stays_suspended(machine: ManagedMachine) -> None:
    await machine.suspend()
    await save(machine)
    assert fake(machine).state is MachineState.PAUSED
    await machine.resume()
    assert fake(machine).state is MachineState.RUNNING


async def test_there_is_no_place_for_the_lock(machine: ManagedMachine) -> None:
    turn_lock().mkdir()
    with pytest.raises(HypervisorError, match="the checkpoint cannot begin"):
        await save(machine)
    assert not fake(machine).guest.is_quiet


async def test_none_begins_to_wait_in_a_hurry(machine: ManagedMachine) -> None:
    async with CheckpointTurn().taken():
        saving = await waiting_save(machine)
        with machine.turn_not_waited_for("the machine is paused"):
            for refused in (saving, save(machine)):
                with pytest.raises(HypervisorError, match="another machine: the machine is paused"):
                    await refused
            machine.give_up_turn("again")
        saving = await waiting_save(machine)
    assert (await saving).number == 1
    with machine.turn_not_waited_for("the machine is paused"):  # nor need it
        assert (await save(machine, 2)).number == 2


async def test_it_is_logged_for_whom_it_waits_long(
    machine: ManagedMachine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoint_turn, "_LONG", 0.02)
    async with asyncio.timeout(LIMIT), CheckpointTurn().taken():
        saving = await waiting_save(machine)
        while not caplog.messages:  # noqa: ASYNC110 - nothing else announces it
            await asyncio.sleep(0.005)
        assert not saving.done()
    assert f"the process that makes it is {os.getpid()}: is it stopped?" in caplog.text
    assert (await saving).number == 1
