"""Saving a machine: first its files, then the manifest by which it is found again."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import MachineSpec, MachineState
from boincvm.hypervisor.fake.driver import FakeDriver, FakeMachine
from boincvm.job.model import MachineShape
from boincvm.machine.checkpointing import Identity, write_checkpoint
from boincvm.machine.managed import ManagedMachine, opened
from boincvm.machine.saved_machine import SavedTask, find_saved, manifests

pytestmark = pytest.mark.timeout(30)

IDENTITY = Identity("digest", MachineShape("sci", memory=1 << 28))
TASK = SavedTask(2, {"call": 1}, stdin=5, files={"out": 7}, guest=1.5, wall=3.0, fraction_done=0.5)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[ManagedMachine]:
    nowhere = tmp_path / "none"
    spec = MachineSpec(tmp_path, nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)
    async with opened(FakeDriver(), spec) as machine:
        yield machine


def fake(machine: ManagedMachine) -> FakeMachine:
    return cast(FakeMachine, machine.session.machine)


async def test_it_is_found_again(machine: ManagedMachine) -> None:
    saved, seen = await write_checkpoint(
        machine, IDENTITY, lambda: (TASK, "seen"), last=False, steps=[0, 2]
    )
    assert seen == "seen"
    assert (saved.driver, saved.image, saved.shape) == ("fake", "digest", IDENTITY.shape)
    assert (saved.steps, saved.task, saved.checkpoint.number) == ((0, 2), TASK, 1)
    found = find_saved(machine.spec.directory)
    assert found.lost == ()
    assert found.saved is not None
    assert found.saved._replace(made=0.0) == saved
    assert fake(machine).state is MachineState.RUNNING


async def test_what_the_caller_looks_at_is_the_quiet_guest(machine: ManagedMachine) -> None:
    guest = fake(machine).guest

    def poll() -> tuple[None, bool]:
        return None, guest.is_quiet

    assert (await write_checkpoint(machine, IDENTITY, poll, last=False))[1]
    assert not guest.is_quiet


async def test_numbers_go_up_and_the_last_one_ends_it(machine: ManagedMachine) -> None:
    numbers = []
    for last in (False, False, True):
        saved, _ = await write_checkpoint(machine, IDENTITY, lambda: (None, None), last=last)
        numbers.append(saved.checkpoint.number)
    assert numbers == [1, 2, 3]
    assert machine.is_saved
    assert [number for number, _ in manifests(machine.spec.directory)] == [3, 2, 1]


@pytest.mark.parametrize("last", [False, True])
async def test_what_fails_leaves_no_manifest(last: bool, machine: ManagedMachine) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise HypervisorError("the disk is full of eels")

    made = fake(machine)
    made.checkpoint = made.save = refuse  # type: ignore[method-assign,assignment]
    with pytest.raises(HypervisorError, match="eels"):
        await write_checkpoint(machine, IDENTITY, lambda: (None, None), last=last)
    assert manifests(machine.spec.directory) == []
    assert made.state is MachineState.RUNNING
    assert not made.guest.is_quiet
