"""VirtualBox's and VMware's commands that are killed, crash, or never end: with a stand-in."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from boincvm.errors import HypervisorError, HypervisorKilledError
from boincvm.hypervisor.virtualbox import vboxmanage
from boincvm.hypervisor.virtualbox.vboxmanage import VBoxManage
from boincvm.hypervisor.vmware import vmrun
from boincvm.hypervisor.vmware.installation import Product
from boincvm.hypervisor.vmware.vmrun import Version, VMRun

Command = Callable[[str], Awaitable[str]]
"""Runs the program as a shell script of this text."""


@pytest.fixture(params=["VBoxManage", "vmrun"])
def command(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    program = tmp_path / request.param
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    async def run(script: str) -> str:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o700)
        if request.param == "vmrun":
            return await VMRun(str(program), Product.PLAYER, Version(1, 17, 0, 1)).run("list")
        return await VBoxManage({}).run("list")

    return run


async def test_it_is_killed(command: Command) -> None:
    """Nobody takes that for a refusal."""
    with pytest.raises(HypervisorKilledError, match=r"signal 9 ended \w+ list"):
        await command("kill -KILL $$")


async def test_it_crashes(command: Command) -> None:
    with pytest.raises(HypervisorError, match=r"signal 11 ended \w+ list") as crash:
        await command("kill -SEGV $$")
    assert not isinstance(crash.value, HypervisorKilledError)


async def test_it_never_ends(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a VBoxManage whose service does not answer."""
    monkeypatch.setattr(vboxmanage, "_LIMIT", 0.5)
    monkeypatch.setattr(vmrun, "_LIMIT", 0.5)
    with pytest.raises(HypervisorError, match=r"\w+ list did not end within 0\.5 seconds"):
        await command("exec sleep 99")


async def test_what_it_starts_holds_its_output_open(command: Command, tmp_path: Path) -> None:
    """Such as its service: nobody waits for that."""
    try:
        async with asyncio.timeout(20):
            assert await command(f"sleep 99 & echo $! >{tmp_path}/pid; echo done") == "done\n"
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
