"""The first-boot script of a machine of the controller, on the fake driver."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.errors import GuestPoweredOffError, TaskFailedError
from boincvm.hypervisor.contract import EndCause, MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.hypervisor.fake.guest import FakeCall, FakeGuest
from boincvm.machine.managed import opened
from boincvm.shim import machine as shim_machine

pytestmark = pytest.mark.timeout(30)


async def run(directory: Path, script: str) -> None:
    async def shell(_: FakeGuest, call: FakeCall) -> int:
        if script.startswith("#!"):
            done = await asyncio.create_subprocess_exec(*call.argv, stderr=subprocess.PIPE)
            _, errors = await asyncio.wait_for(done.communicate(), 20)
            call.write("stderr", errors)
            return done.returncode or 0
        assert call.argv[1:] == [b"-c", script.encode()]
        if script == "poweroff":
            driver.machines[0].end(EndCause.POWERED_OFF, "")
        if script == "sleep":
            signals.put_nowait(await call.signals.get())
        call.write("stderr", b"it does this\n" * 100 + b"it says this\n")
        return int(script == "false")

    async def sync(_: FakeGuest, __: FakeCall) -> int:
        nonlocal synced
        synced = True
        return 0

    signals = asyncio.Queue[int]()
    synced = False
    driver = FakeDriver({"sh": shell, "sync": sync})
    spec = MachineSpec(directory, Path(), Path(), Path(), memory=1 << 20, cpus=1)
    async with opened(driver, spec) as machine:
        try:
            await shim_machine._run_first_boot(machine.session, script)
            assert synced
        finally:
            if script == "sleep":
                async with asyncio.timeout(10):
                    assert await signals.get() == 9


async def test_a_script_that_succeeds_and_one_that_fails(tmp_path: Path) -> None:
    await run(tmp_path, "true")
    with pytest.raises(TaskFailedError, match=r"its first-boot script failed: .*it says this$"):
        await run(tmp_path, "false")


async def test_a_script_that_turns_the_machine_off(tmp_path: Path) -> None:
    """The error is how the machine ended, not that its link did."""
    with pytest.raises(GuestPoweredOffError):
        await run(tmp_path, "poweroff")


async def test_a_script_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed, and the start fails."""
    monkeypatch.setattr(shim_machine, "LONG", 0.05)
    with pytest.raises(TaskFailedError, match=r"did not end within 0\.05s"):
        await run(tmp_path, "sleep")


async def test_a_script_for_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run what the guest's shell is given in a shell of this host; nothing of it is left."""
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "own"))
    script = f"#!{sys.executable}\nimport sys\nsys.exit({{}})\n"
    await run(tmp_path / "a", script.format(0))
    with pytest.raises(TaskFailedError, match="failed: 'it says so'"):
        await run(tmp_path / "b", script.format("\"'it says so'\""))
    assert list((tmp_path / "own").iterdir()) == []
