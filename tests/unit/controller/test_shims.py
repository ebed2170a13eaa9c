"""A controller and the shims of its machines: one dies at once, one is found again, one is not."""

import asyncio
import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from boincvm.controller import controller
from boincvm.controller.machines import local_machine
from boincvm.controller.machines.local_machine import LocalMachine
from boincvm.controller.protocol.guest import Guest
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import GuestDiedError
from boincvm.shim.machine_directory import MachineDirectory, Status
from support.controller.controlled import Controlled, controlled
from support.controller.faked import fake_machines  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(120)
with_shims = pytest.mark.usefixtures("fake_machines")


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def unexpected(directory: MachineDirectory, status: Status) -> None:
    raise AssertionError(f"{status} is written in {directory.directory}")


async def running(asked: Controlled, name: str = "a") -> LocalMachine:
    if asked.controller.machines.find(name) is None:
        await asked("create", name=name, memory="256M")
    assert await asked.outcome("start", name) == {"state": "running"}
    found = asked.controller.machines.find(name)
    assert found is not None
    return found


async def ends(machine: LocalMachine) -> None:
    async with asyncio.timeout(20):
        await machine.until(lambda: not machine.has_shim)


@pytest.mark.parametrize("command", ["no_such_module", "__main__", "boincvm.errors"])
async def test_a_shim_that_dies_at_once(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_machine, "_SHIM", command)
    async with controlled(tmp_path) as asked:
        await asked("create", name="a", memory="256M")
        for _ in range(3):
            refused = (await asked.outcome("start", "a"))["error"]
            assert refused["message"] == "the machine a did not start: see its log"
        assert (await asked.vm("a"))["state"] == "powered_off"


@with_shims
async def test_only_the_shim_writes_the_state_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller's copy would be older: without the disk's layers, if it came late."""
    async with controlled(tmp_path) as asked:
        await asked("create", name="a", memory="256M")
        with monkeypatch.context() as patched:
            patched.setattr(MachineDirectory, "write_status", unexpected)
            assert await asked.outcome("start", "a") == {"state": "running"}


@with_shims
async def test_another_controller_finds_the_shim(tmp_path: Path) -> None:
    async with controlled(tmp_path, ends_all=False) as asked:
        await running(asked)
        shim = asked.shim("a")
    async with controlled(tmp_path) as asked:
        assert asked.shim("a") == shim
        assert (await asked.vm("a"))["state"] == "running"
        assert await asked.outcome("pause", "a") == {"state": "paused"}


@with_shims
@pytest.mark.parametrize("pid", [0, 1, (1 << 22) - 1, None], ids=["none", "other", "gone", "ours"])
async def test_a_shim_that_had_not_said_who_it_is(pid: int | None, tmp_path: Path) -> None:
    """The controller was killed just after starting it; or the process id now belongs to another
    process."""
    async with controlled(tmp_path, ends_all=False) as asked:
        machine = await running(asked)
        status = machine.directory.status()
        machine.directory.write_status(
            status._replace(pid=os.getpid() if pid is None else pid, state=VmState.POWERED_OFF)
        )
    async with controlled(tmp_path) as asked:
        found = asked.controller.machines.find("a")
        assert found is not None
        assert not found.has_shim
        found.directory.write_status(status)
        # Nobody starts a second one beside it.
        assert await asked.outcome("start", "a") == {"state": "running"}
        assert asked.shim("a") == status.pid
        assert found.has_shim


@with_shims
async def test_a_shim_is_found_by_what_it_says(tmp_path: Path) -> None:
    async with controlled(tmp_path, ends_all=False) as asked:
        status = (await running(asked)).directory.status()
        asked.directory("a").write_status(status._replace(pid=0))
    MachineDirectory(tmp_path / "machines" / "a").write_status(status._replace(pid=0))
    async with controlled(tmp_path) as asked:
        found = asked.controller.machines.find("a")
        assert found is not None
        assert not found.has_shim
        found.directory.write_status(status)
        async with asyncio.timeout(30):
            await found.until(lambda: found.has_shim)


@with_shims
async def test_one_that_was_killed_while_nobody_looked(tmp_path: Path) -> None:
    async with controlled(tmp_path, ends_all=False) as asked:
        machine = await running(asked)
        shim = asked.shim("a")
    os.kill(shim, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, shim, 0)
    async with controlled(tmp_path) as asked:
        reported = await asked.vm("a")
        assert (reported["state"], reported["why"]) == (
            "aborted",
            "its shim was killed, and the machine with it",
        )
        assert machine.directory.status().state is VmState.ABORTED
        await running(asked)


@with_shims
async def test_a_shim_killed_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controlled(tmp_path) as asked:
        machine = await running(asked)
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(MachineDirectory, "write_status", full_disk)
            os.kill(asked.shim("a"), signal.SIGKILL)
            await ends(machine)
            assert (await asked.vm("a"))["state"] == "aborted"
        await running(asked)


@with_shims
@pytest.mark.parametrize("fault", ["damaged", "removed"])
async def test_a_shim_killed_and_its_files_too(fault: str, tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        machine = await running(asked)
        shim = asked.shim("a")
        if fault == "damaged":
            (machine.directory.directory / "state.json").write_text("{")
        else:
            shutil.rmtree(machine.directory.directory)
        os.kill(shim, signal.SIGKILL)
        await ends(machine)
        assert (await asked.vm("a"))["state"] == "aborted"
        refused = (await asked.outcome("start", "a"))["error"]["message"]
        assert "did not start" in refused or "No such file" in refused
        removed = await asked.outcome("remove", "a")
        assert removed == {"state": "removed"} or fault == "removed"
        if fault == "removed":
            asked.controller.machines._machines.clear()


@with_shims
async def test_damaged_words_for_the_bus_are_written_anew(tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await asked("create", name="a", memory="256M")
        (asked.directory("a").directory / "bus.json").write_text("{")
        await running(asked)


@with_shims
@pytest.mark.parametrize("content", ["{", '{"commands": [{}]}', '{"commands": [{"request": 1}]}'])
async def test_commands_that_are_damaged_are_reported(content: str, tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await running(asked)
        assert await asked.outcome("save", "a") == {"state": "saved"}
        (asked.directory("a").directory / "commands.json").write_text(content)
        refused = (await asked.outcome("start", "a"))["error"]["message"]
        assert "commands.json" in refused
        assert "is damaged" in refused
        assert (await asked.vm("a"))["state"] == "aborted"
        assert await asked.outcome("discard", "a") == {"state": "powered_off"}
        await running(asked)


@with_shims
async def test_the_last_message_of_a_shim_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits until it would be called silent, half a minute later."""
    monkeypatch.setattr(controller, "_BYE_LIMIT", 0.2)
    async with controlled(tmp_path) as asked:
        await asked("create", name="a", memory="256M", labels={"fake": "says-no-bye"})
        await running(asked)
        assert await asked.outcome("power_off", "a") == {"state": "powered_off"}
        async with asyncio.timeout(15):
            await asked.until_event("guest_left", "it has left")


@with_shims
async def test_requests_go_on_while_the_shim_ends(tmp_path: Path) -> None:
    """A request that arrives in the last moment neither breaks its bus nor waits for long."""
    async with controlled(tmp_path) as asked:
        for _ in range(5):
            await running(asked)
            guest = await asked.controller.hub.registry.wait_for("a")
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                for _ in range(16):
                    group.create_task(ask_until_it_has_gone(asked, guest))
                await asked.outcome("power_off", "a")
        log = asked.directory("a").log.read_text()
    assert "Warning" not in log
    assert "Traceback" not in log


async def ask_until_it_has_gone(asked: Controlled, guest: Guest) -> None:
    while True:
        try:
            await asked.controller.hub.requester.ask(guest, "file-drop", {"transfer": "none"})
        except GuestDiedError:
            return
