"""From the volunteer's preferences to a guest's memory limit."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from boincvm.boinc import InitData
from boincvm.boinc.init_data import Preferences, parse_init_data
from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import GuestMemory, MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver, FakeMachine
from boincvm.hypervisor.qemu.command import machine_command
from boincvm.hypervisor.qemu.launch import Launch
from boincvm.job.model import GIB, MIB, MachineShape
from boincvm.machine.host_capacity import HYPERVISOR_MEMORY
from boincvm.machine.managed import ManagedMachine, opened
from boincvm.machine.saved_machine import SavedMachine
from boincvm.machine.start_source import Restore
from boincvm.wrapper.memory_limit import LEAST, ROOM, MemoryLimit, allowed_memory, memory_for

ENDLESS = float("inf")
SIZE = 512 * MIB


@pytest.mark.parametrize(
    ("memory", "busy", "idle", "machines", "expected"),
    [
        (8 * GIB, 0.5, 0.75, 1, 6 * GIB - HYPERVISOR_MEMORY),
        (8 * GIB, 0.75, 0.5, 1, 6 * GIB - HYPERVISOR_MEMORY),
        (8 * GIB, 0.5, 0.75, 2, 3 * GIB - HYPERVISOR_MEMORY),
        (8 * GIB, 0.5, 40.0, 1, 8 * GIB - HYPERVISOR_MEMORY),
        (8 * GIB, 0.0, 0.0, 1, ENDLESS),
        (8 * GIB, -1.0, -1.0, 1, ENDLESS),
        (0, 0.5, 0.9, 1, ENDLESS),
        (float("nan"), 0.5, 0.9, 1, ENDLESS),
        (ENDLESS, 0.5, 0.9, 1, ENDLESS),
        (64 * MIB, 0.5, 0.9, 1, 0),
        (8 * GIB, 0.5, 0.5, 0, 4 * GIB - HYPERVISOR_MEMORY),
    ],
)
def test_what_the_preferences_allow(
    memory: float, busy: float, idle: float, machines: int, expected: float
) -> None:
    preferences = Preferences(ram_busy_fraction=busy, ram_idle_fraction=idle)
    known = InitData(host_memory=memory, preferences=preferences)
    assert allowed_memory(known, machines) == expected


def test_init_data_that_says_nothing_allows_everything() -> None:
    assert allowed_memory(parse_init_data(""), 1) == ENDLESS


@pytest.mark.parametrize(
    ("allowed", "size", "available", "expected"),
    [
        (ENDLESS, SIZE, 0, SIZE),
        (SIZE, 100 * MIB, 0, SIZE),
        (200 * MIB, SIZE, 400 * MIB, 200 * MIB),
        (200 * MIB, SIZE, 200 * MIB, 312 * MIB + ROOM),  # it needs more than is allowed
        (0, SIZE, 480 * MIB, LEAST),
        (0, SIZE, SIZE, LEAST),
        (200 * MIB, 200 * MIB, 10 * MIB, SIZE),  # it is in need: who knows how much it wants
        (0, SIZE, ROOM - 1, SIZE),  # never more than it was made with
        (200 * MIB + 4095, SIZE, 400 * MIB, 200 * MIB),
    ],
)
def test_what_a_guest_has(allowed: float, size: int, available: int, expected: int) -> None:
    assert memory_for(SIZE, allowed, GuestMemory(size, available, 0.0)) == expected


def test_a_guest_that_says_nothing_is_left_alone() -> None:
    assert memory_for(SIZE, 0, None) is None


def spec(*, balloon: bool) -> MachineSpec:
    files = (Path("/k"), Path("/i"), Path("/r"))
    return MachineSpec(Path("/d"), *files, memory=SIZE, cpus=1, balloon=balloon)


@pytest.mark.parametrize("balloon", [False, True])
def test_only_a_machine_that_asks_has_a_balloon(
    monkeypatch: pytest.MonkeyPatch, *, balloon: bool
) -> None:
    monkeypatch.setattr("boincvm.hypervisor.qemu.command.find_program", lambda name: name)
    command = machine_command(
        spec(balloon=balloon),
        "tcg",
        Launch(("disk-000000.qcow2",)),
        qmp="fd=3",
        link="fd=4",
        console="fd=5",
    )
    assert ("balloon" in " ".join(command)) is balloon


@pytest.fixture
async def managed() -> AsyncIterator[ManagedMachine]:
    async with opened(FakeDriver(), spec(balloon=True)) as managed:
        yield managed


@pytest.fixture
def machine(managed: ManagedMachine) -> FakeMachine:
    return fake_of(managed)


def fake_of(managed: ManagedMachine) -> FakeMachine:
    return cast(FakeMachine, managed.session.machine)


def within(allowed: float) -> Callable[[GuestMemory | None], int | None]:
    return lambda guest: memory_for(SIZE, allowed, guest)


async def test_a_machine_is_held_and_released(
    managed: ManagedMachine, machine: FakeMachine
) -> None:
    for allowed, expected in (
        (200 * MIB, 200 * MIB),
        (190 * MIB, 200 * MIB),  # a little less is not worth it
        (201 * MIB, 201 * MIB),
        (150 * MIB, 150 * MIB),
        (ENDLESS, SIZE),
    ):
        assert await managed.hold_memory(within(allowed), settle_time=0) == expected
        assert machine.memory_size == expected


async def test_figures_of_a_guest_that_changes_do_not_count(
    managed: ManagedMachine, machine: FakeMachine
) -> None:
    assert await managed.hold_memory(within(200 * MIB), settle_time=1000) == 200 * MIB
    assert await managed.hold_memory(within(150 * MIB), settle_time=1000) is None
    assert machine.memory_size == 200 * MIB
    assert await managed.hold_memory(within(ENDLESS), settle_time=1000) == SIZE


async def test_a_machine_that_was_saved_is_told_again(managed: ManagedMachine) -> None:
    assert await managed.hold_memory(within(150 * MIB), 0) == 150 * MIB
    checkpoint, link, _ = await managed.save(1, lambda: None, last=True)
    saved = SavedMachine(
        checkpoint, "fake", "digest", MachineShape(memory=SIZE), link=link, steps=(), task=None
    )
    again = ManagedMachine(managed.driver, managed.spec)
    await again.start([Restore(saved, lambda _link: None)])
    assert await again.hold_memory(within(ENDLESS), 0) == SIZE
    assert fake_of(again).memory_size == SIZE
    await again.close()


async def test_a_machine_that_does_not_run_is_left_alone(
    managed: ManagedMachine, machine: FakeMachine
) -> None:
    await machine.stop()
    assert await managed.hold_memory(within(200 * MIB), settle_time=0) is None


async def test_a_hypervisor_that_refuses_is_not_asked_again(
    managed: ManagedMachine, machine: FakeMachine, capfd: pytest.CaptureFixture[str]
) -> None:
    """And the task continues: a machine's end is reported elsewhere."""
    asked: asyncio.Queue[None] = asyncio.Queue()

    async def refuse() -> GuestMemory | None:
        asked.put_nowait(None)
        raise HypervisorError("QEMU refused qom-get")

    machine.memory = refuse  # type: ignore[method-assign]
    known = InitData(host_memory=400.0 * MIB)
    memory = MemoryLimit(lambda: known, {"vm": managed})
    holding = asyncio.ensure_future(memory.run())
    async with asyncio.timeout(10):
        memory.recheck()
        await asked.get()
    memory.recheck()
    for _ in range(10):  # it would be asked in the first of these
        await asyncio.sleep(0)
    assert asked.empty()
    assert not holding.done()
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert capfd.readouterr().err.count("the memory of the machine vm stays as it is") == 1
