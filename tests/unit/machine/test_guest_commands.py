"""Our own commands in a guest, on the fake driver: how long they may take, what is kept of them."""

import asyncio
from pathlib import Path

import pytest

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeGuest
from boincvm.machine.guest_commands import (
    GuestCommandLimitError,
    output_in_guest,
    run_in_guest,
)
from boincvm.machine.managed import opened

pytestmark = pytest.mark.timeout(30)


def spec(directory: Path) -> MachineSpec:
    return MachineSpec(directory / "machine", Path(), Path(), Path(), memory=1 << 20, cpus=1)


async def test_a_command_that_does_not_end_is_killed(tmp_path: Path) -> None:
    signals = asyncio.Queue[int]()

    async def stuck(_: FakeGuest, call: FakeCall) -> int:
        signals.put_nowait(await call.signals.get())
        return -9

    async with opened(FakeDriver({"rm": stuck}), spec(tmp_path)) as machine:
        with pytest.raises(GuestCommandLimitError, match=r"rm in the guest .* within 0.05s"):
            await machine.guard(run_in_guest(machine.session, ["rm", "x"], within=0.05))
        async with asyncio.timeout(10):
            assert await signals.get() == 9
        work = asyncio.ensure_future(run_in_guest(machine.session, ["rm", "x"]))
        await asyncio.sleep(0)
        work.cancel()  # nobody waits for it any more
        async with asyncio.timeout(10):
            assert await signals.get() == 9


@pytest.mark.parametrize(("is_end_kept", "expected"), [(False, b"abc"), (True, b"def")])
async def test_the_output_that_is_kept(tmp_path: Path, is_end_kept: bool, expected: bytes) -> None:
    async def write(_: FakeGuest, call: FakeCall) -> int:
        for data in (b"ab", b"cd", b"ef"):
            call.write("stdout", data)
        return 3

    async with opened(FakeDriver({"prog": write}), spec(tmp_path)) as machine:
        run = output_in_guest(machine.session, ["prog"], 3, is_end_kept=is_end_kept)
        assert await machine.guard(run) == (3, expected)
