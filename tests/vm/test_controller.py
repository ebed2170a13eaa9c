"""Real machines of a controller: their life cycle, and what happens when something is killed."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from support.bench import wait_for_end
from support.controller.controlled import children_of, controlled

pytestmark = pytest.mark.timeout(240)


async def test_a_machine_s_life(base_image: Path, tmp_path: Path) -> None:
    directory = tmp_path / ("deep" * 40) / "controller"
    async with controlled(directory) as asked:
        await asked("create", name="a", memory="256M")
        assert (await asked.vm("a"))["state"] == "powered_off"
        assert await asked.outcome("start", "a") == {"state": "running"}
        assert await asked.outcome("start", "a") == {"state": "running"}
        assert await asked.run(
            "a", "sh", "-c", "echo one >file; sync file; sync; sync; cat file"
        ) == {"a": (0, "one\n")}
        assert await asked.outcome("pause", "a") == {"state": "paused"}
        assert await asked.outcome("resume", "a") == {"state": "running"}
        taken = await asked.outcome("snapshot_take", "a", name="first", description="one")
        assert (taken["state"], taken["snapshot"]) == ("running", "first")
        await asked.run("a", "sh", "-c", "echo two >file; sync file; sync; sync")
        restored = await asked.outcome("snapshot_restore", "a")
        assert restored == {"state": "running", "snapshot": "first"}
        assert await asked.run("a", "cat", "file") == {"a": (0, "one\n")}
        assert await asked.outcome("stop", "a") == {"state": "powered_off"}
        assert await asked.outcome("stop", "a") == {"state": "powered_off"}
        await asked.outcome("start", "a")
        # A disk outlives its machine.
        assert await asked.run("a", "cat", "file") == {"a": (0, "one\n")}
        listed = await asked("snapshot_list", vm="a")
        assert [(one["name"], one["description"]) for one in listed["snapshots"]] == [
            ("first", "one")
        ]
        assert await asked.outcome("snapshot_remove", "a", name="first") == {"state": "running"}
        refused = await asked.outcome("snapshot_restore", "a", name="first")
        assert refused["error"]["message"] == "the machine has no snapshot first"
        refused = await asked.outcome("remove", "a")
        assert refused["error"]["message"] == "the machine a is running"
        assert await asked.outcome("remove", "a", force=True) == {"state": "removed"}
        assert list((directory / "machines").iterdir()) == []


async def test_a_command_goes_on_when_its_machine_wakes(base_image: Path, tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await asked("create", name="a", memory="256M")
        await asked.outcome("start", "a")
        script = "echo one; read word; echo $word; exit 3"
        command = await asked.begin("a", "sh", "-c", script, keep_input=True)
        answer = command.answers["a"]
        async with asyncio.timeout(60):
            while not answer.outputs["stdout"].end:
                await command.changed()
        assert await asked.outcome("save", "a") == {"state": "saved"}
        assert await asked.outcome("save", "a") == {"state": "saved"}
        assert not command.is_finished
        assert await asked.outcome("start", "a") == {"state": "running"}
        await asked.controller.give_input(command.id, b"two\n", ends=True)
        assert await asked.ends(command) == {"a": (3, "one\ntwo\n")}
        # What was saved is not used twice.
        assert await asked.outcome("power_off", "a") == {"state": "powered_off"}
        assert not list(asked.directory("a").disk.glob("memory-*"))
        saved = await asked.outcome("save", "a")
        assert "powered off" in saved["error"]["message"]


async def test_another_controller_finds_its_machines(base_image: Path, tmp_path: Path) -> None:
    async with controlled(tmp_path, ends_all=False) as asked:
        await asked("create", name="a", memory="256M")
        await asked.outcome("start", "a")
        ended = await asked.begin("a", "echo", "before")
        await asked.ends(ended)
        command = await asked.begin("a", "sh", "-c", "echo one; sleep 2; echo two")
        shim = asked.shim("a")
    async with controlled(tmp_path) as asked:
        assert asked.shim("a") == shim
        assert (await asked.vm("a"))["state"] == "running"
        assert (await asked("command", id=ended.id, output=True))["answers"]["a"]["output"] == {
            "stdout": "before\n",
            "stderr": "",
        }
        again = asked.controller.hub.commands.find(command.id)
        assert await asked.ends(again) == {"a": (0, "one\ntwo\n")}
        assert await asked.run("a", "echo", "three") == {"a": (0, "three\n")}


async def test_what_is_killed_is_reported_and_starts_again(
    base_image: Path, tmp_path: Path
) -> None:
    async with controlled(tmp_path) as asked:
        await asked("create", name="a", memory="256M")
        await asked.outcome("start", "a")
        await asked.run("a", "sh", "-c", "echo kept >file; sync file; sync; sync")
        shim = asked.shim("a")
        (qemu,) = children_of(shim)
        running = await asked.begin("a", "sleep", "100")
        os.kill(qemu, signal.SIGKILL)
        await asked.until_event("vm_state", "killed from outside")
        assert (await asked.vm("a"))["state"] == "aborted"
        async with asyncio.timeout(20):
            await running.finished()
        assert running.answers["a"].state.name in ("ENDED", "LOST")
        assert await asked.outcome("start", "a") == {"state": "running"}
        assert await asked.run("a", "cat", "file") == {"a": (0, "kept\n")}

        shim = asked.shim("a")
        (qemu,) = map(os.pidfd_open, children_of(shim))
        os.kill(shim, signal.SIGKILL)
        await asked.until_event("vm_state", "its shim was killed")
        assert (await asked.vm("a"))["state"] == "aborted"
        await asyncio.to_thread(wait_for_end, qemu)
        assert await asked.outcome("start", "a") == {"state": "running"}
        assert await asked.run("a", "cat", "file") == {"a": (0, "kept\n")}


async def test_the_host_is_shut_down(base_image: Path, tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await asked("create", name="a", memory="256M")
        await asked.outcome("start", "a")
        command = await asked.begin("a", "sh", "-c", "sleep 1; echo done")
        os.kill(asked.shim("a"), signal.SIGTERM)
        await asked.until_event("vm_state", "it is saved")
        assert await asked.outcome("start", "a") == {"state": "running"}
        assert await asked.ends(command) == {"a": (0, "done\n")}


async def test_a_saved_state_that_is_damaged(base_image: Path, tmp_path: Path) -> None:
    async with controlled(tmp_path) as asked:
        await asked("create", name="a", memory="256M")
        await asked.outcome("start", "a")
        await asked.run("a", "sh", "-c", "echo kept >file; sync file; sync; sync")
        command = await asked.begin("a", "sleep", "100")
        await asked.outcome("save", "a")
        (memory,) = asked.directory("a").disk.glob("memory-*")
        with memory.open("r+b") as file:
            file.seek(memory.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        refused = await asked.outcome("start", "a")
        assert "is damaged" in refused["error"]["message"]
        assert (await asked.vm("a"))["state"] == "aborted"
        assert await asked.outcome("discard", "a") == {"state": "powered_off"}
        assert command.is_finished
        assert await asked.outcome("start", "a") == {"state": "running"}
        assert await asked.run("a", "cat", "file") == {"a": (0, "kept\n")}
