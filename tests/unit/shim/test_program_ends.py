"""Programs in a machine that dies: who learns of their end finds the machine ended."""

import asyncio
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.protocol.program import Request
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import GuestDiedError
from boincvm.hypervisor.contract import EndCause, MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver, FakeMachine
from boincvm.hypervisor.fake.guest import FakeCall, FakeGuest
from boincvm.machine.managed import opened
from boincvm.node.commands import NodeCommands
from boincvm.shim.machine import ShimMachine
from boincvm.shim.machine_directory import Definition, MachineDirectory
from support.controller.lossy import FakeProgram

pytestmark = pytest.mark.timeout(60)
DEFINITION = Definition("a", "base", 1 << 28, 1, None, False, False, {}, 1.0)


async def test_a_program_ends_no_sooner_than_its_machine(tmp_path: Path) -> None:
    """Otherwise `start` right after a failed `exec` would find a machine that runs."""
    begun = asyncio.Event()

    async def program(_guest: FakeGuest, _call: FakeCall) -> int:
        begun.set()
        return await asyncio.get_running_loop().create_future()

    location = MachineDirectory(tmp_path / "a")
    location.make(DEFINITION, BrokerAddress("a", "x", path="/nowhere"))
    spec = MachineSpec(location.disk, Path("k"), Path("i"), Path("r"), memory=1 << 28, cpus=1)
    states: list[VmState] = []
    async with (
        asyncio.timeout(30),
        asyncio.TaskGroup() as group,
        opened(FakeDriver({"prog": program}), spec) as managed,
    ):
        machine = ShimMachine(location, DEFINITION, lambda: states.append(machine.status.state))
        machine.prepare(NodeCommands("life", FakeProgram, lambda _: None, group), goes_on=False)
        machine._machine, machine._image, machine._is_up = managed, Mock(digest="none"), True
        machine.come_up("none", (), frozenset())
        started = machine.programs.start(Request(("prog",)), Mock())
        waits = asyncio.ensure_future(started.wait())
        watch = asyncio.ensure_future(machine.until_over())
        await begun.wait()
        cast(FakeMachine, managed.session.machine).end(EndCause.PANICKED, "Kernel panic")
        with pytest.raises(GuestDiedError, match="panic"):
            await waits
        assert states[-1] is VmState.ABORTED  # this was reported before
        await watch
