"""What a machine's record says about its disk, when it ended in one way or another.

The guest is a stand-in; the disk of a real one that was shut down is written in full.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver, FakeMachine
from boincvm.machine.managed import opened
from boincvm.node.commands import NodeCommands
from boincvm.shim.machine import ShimMachine
from boincvm.shim.machine_directory import Definition, MachineDirectory
from support.controller.lossy import FakeProgram

pytestmark = pytest.mark.timeout(60)
DEFINITION = Definition("a", "base", 1 << 28, 1, None, False, False, {}, 1.0)


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_start_that_fails_before_the_guest_begins_leaves_the_disk_as_it_was(
    tmp_path: Path, has_begun: bool
) -> None:
    location = MachineDirectory(tmp_path / "a")
    location.make(DEFINITION, BrokerAddress("a", "x", path="/nowhere"))
    location.write_status(location.status()._replace(was_shut_down=True))
    async with asyncio.timeout(30), asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        made = ShimMachine(location, DEFINITION, lambda: None)
        made.prepare(NodeCommands("life", FakeProgram, lambda _: None, group), goes_on=False)
        if has_begun:
            spec = MachineSpec(location.disk, *map(Path, "kir"), memory=1 << 28, cpus=1)
            made._machine = await stack.enter_async_context(opened(FakeDriver(), spec))
        await made.fail(HypervisorError("there is none"))
    status = location.status()
    assert (status.state, status.why) == (VmState.ABORTED, "there is none")
    assert status.was_shut_down is not has_begun


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[ShimMachine]:
    """A machine that runs, and was shut down before."""
    location = MachineDirectory(tmp_path / "a")
    location.make(DEFINITION, BrokerAddress("a", "x", path="/nowhere"))
    location.write_status(location.status()._replace(was_shut_down=True))
    spec = MachineSpec(location.disk, Path("k"), Path("i"), Path("r"), memory=1 << 28, cpus=1)
    async with (
        asyncio.timeout(30),
        asyncio.TaskGroup() as group,
        opened(FakeDriver(), spec) as managed,
    ):
        made = ShimMachine(location, DEFINITION, lambda: None)
        made.prepare(NodeCommands("life", FakeProgram, lambda _: None, group), goes_on=False)
        made._machine, made._image, made._is_up = managed, Mock(digest="none"), True
        made.come_up("none", (), frozenset())
        assert not location.status().was_shut_down
        yield made


async def _stop(machine: ShimMachine) -> None:
    await machine.stop(20.0)


async def _watched_stop(machine: ShimMachine) -> None:
    """Its watcher may see the end first."""
    await asyncio.gather(machine.until_over(), machine.stop(20.0))


async def _stop_in_vain(machine: ShimMachine) -> None:
    await machine.stop(0.0)


async def _by_itself(machine: ShimMachine) -> None:
    """As by `reboot -f` in the guest, which writes no buffers."""
    fake = cast(FakeMachine, machine._required().session.machine)
    fake.guest.on_power_off()
    await machine.until_over()


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (_stop, True),
        (_watched_stop, True),
        (_stop_in_vain, False),
        (ShimMachine.power_off, False),
        (_by_itself, False),
    ],
)
async def test_which_ends_write_the_disk_in_full(
    running: ShimMachine, end: Callable[[ShimMachine], Awaitable[None]], expected: bool
) -> None:
    await end(running)
    status = running.directory.status()
    assert status.state is VmState.POWERED_OFF
    assert status.was_shut_down is expected
