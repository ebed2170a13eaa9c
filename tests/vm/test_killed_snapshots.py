"""A shim or its hypervisor is killed at each step of a snapshot: what the guest had synced exists
at the next start, and so do the earlier snapshots."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import pytest

from boincvm.controller.commands.command import Command
from boincvm.controller.machines import local_machine
from boincvm.controller.protocol.vm_state import VmState
from boincvm.hypervisor.qemu import checkpoint
from boincvm.shim.machine_directory import MachineDirectory
from boincvm.shim.snapshots import Snapshots, read_checkpoint
from support import with_support
from support.controller.controlled import LIMIT, Controlled, children_of, controlled

pytestmark = pytest.mark.timeout(280)
COUNTS = """
i=$(cat counted || echo 0)
while :; do
    i=$((i+1)); echo $i >new; sync new; mv new counted; sync counted
    echo $i; sleep 0.02
done"""
RUNS_AGAIN = "manifest to be written"
STEPS = (*checkpoint.STEPS, RUNS_AGAIN, "manifest written", "snapshot named")


class Gate:
    """The socket that gated shims ask. `closed_at`: steps that are held."""

    def __init__(self) -> None:
        self.closed_at: set[str] = set()
        self._waiting: dict[str, asyncio.StreamWriter] = {}
        self._news = asyncio.Event()

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        step = (await reader.readline()).decode().strip()
        if step in self.closed_at:
            self._waiting[step] = writer
            self._news.set()
        else:
            writer.close()

    async def reached(self, step: str) -> None:
        async with asyncio.timeout(LIMIT):
            while step not in self._waiting:
                self._news.clear()
                await self._news.wait()

    def open(self, *steps: str) -> None:
        """Open for good: shims that wait there continue."""
        self.closed_at -= set(steps)
        for step in steps:
            if step in self._waiting:
                self._waiting.pop(step).close()


@pytest.fixture
async def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    gate, path = Gate(), tmp_path / "gate"
    monkeypatch.setattr(local_machine, "_SHIM", "support.controller.gated_shim")
    monkeypatch.setenv("PYTHONPATH", with_support()["PYTHONPATH"])
    monkeypatch.setenv("BOINCVM_TEST_GATE", str(path))
    async with await asyncio.start_unix_server(gate.ask, path):
        yield gate
        gate.open(*STEPS)


class Counting:
    """A program in the machine `a` that counts: it writes a number, syncs it and prints it."""

    def __init__(self, asked: Controlled, command: Command) -> None:
        self._asked = asked
        self._command = command

    @classmethod
    async def begin(cls, asked: Controlled) -> Self:
        """Start counting where its last life ended."""
        begun = cls(asked, await asked.begin("a", "sh", "-c", COUNTS))
        await begun.goes_on()
        return begun

    async def received(self) -> int:
        """Return the last number that was received from it."""
        reported = await self._asked("command", id=self._command.id, output=True)
        return int(["0", *reported["answers"]["a"]["output"]["stdout"].split("\n")][-2])

    async def goes_on(self) -> None:
        """Wait until it has printed more."""
        enough = await self.received() + 3
        async with asyncio.timeout(LIMIT):
            while await self.received() < enough:
                await self._command.changed()


@asynccontextmanager
async def cut_off(
    asked: Controlled, gate: Gate, name: str, step: str, counting: Counting
) -> AsyncIterator[None]:
    """Hold a snapshot `name` at `step` in the block; the counting program continues if it should
    run then."""
    runs = STEPS.index(step) >= STEPS.index(RUNS_AGAIN)
    gate.closed_at = {step, *([RUNS_AGAIN] if runs else [])}
    async with asyncio.TaskGroup() as group:
        taken = group.create_task(asked.outcome("snapshot_take", "a", name=name))
        if runs:
            await gate.reached(RUNS_AGAIN)
            await counting.goes_on()
            if step != RUNS_AGAIN:
                gate.open(RUNS_AGAIN)
        await gate.reached(step)
        assert not taken.done()
        yield
        gate.open(*STEPS)


def whole_snapshots(location: MachineDirectory) -> list[str]:
    """Return the names of the snapshots, each of which is verified."""
    found = Snapshots(location).all()
    for one in found:
        read_checkpoint(location, one.number)
    return [one.name for one in found]


@pytest.mark.parametrize("victim", ["shim", "hypervisor"])
async def test_what_was_synced_outlives_a_snapshot_that_is_cut_off(
    gate: Gate, base_image: Path, tmp_path: Path, victim: str
) -> None:
    """Test each step with one machine, so that its layers are merged meanwhile."""
    async with controlled(tmp_path / "c") as asked:
        await asked("create", name="a", memory="256M")
        machine = asked.controller.machines.find("a")
        assert machine is not None
        assert await asked.outcome("start", "a") == {"state": "running"}
        assert (await asked.outcome("snapshot_take", "a", name="first"))["snapshot"] == "first"
        for number, step in enumerate(STEPS):
            counting = await Counting.begin(asked)
            shim = asked.shim("a")
            (qemu, *_) = children_of(shim)
            async with cut_off(asked, gate, f"cut-{number}", step, counting):
                os.kill(shim if victim == "shim" else qemu, signal.SIGKILL)
            async with asyncio.timeout(LIMIT):
                await machine.until(lambda: machine.state is VmState.ABORTED)
            assert await asked.outcome("start", "a") == {"state": "running"}, step
            ((code, counted),) = (await asked.run("a", "cat", "counted")).values()
            assert code == 0, step
            assert int(counted) >= await counting.received(), step
            assert whole_snapshots(asked.directory("a"))[0] == "first", step
        assert whole_snapshots(asked.directory("a"))[-1] == f"cut-{len(STEPS) - 1}"
        restored = await asked.outcome("snapshot_restore", "a", name="first")
        assert restored == {"state": "running", "snapshot": "first"}
        assert await asked.run("a", "ls", "/work") == {"a": (0, "")}
