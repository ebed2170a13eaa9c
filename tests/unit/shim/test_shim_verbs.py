"""Requests to a shim: handled in turn, checked, and refused with a proper error."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import cast
from unittest.mock import AsyncMock, Mock

import pytest

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.protocol.requests import Reply
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import (
    BoincvmError,
    HostDiskFullError,
    HostError,
    HypervisorError,
    UsageError,
)
from boincvm.hypervisor.contract import Checkpoint, MachineSpec, MachineState, RecordLayers
from boincvm.hypervisor.fake.driver import FakeDriver, FakeMachine
from boincvm.machine.checkpoint_turn import CheckpointTurn, turn_lock
from boincvm.machine.managed import ManagedMachine, opened
from boincvm.machine.saved_machine import SavedMachine, manifests, write_saved
from boincvm.node.commands import NodeCommands
from boincvm.shim.machine import ShimMachine
from boincvm.shim.machine_directory import Definition, MachineDirectory
from boincvm.shim.verbs import LONGEST_STOP, ShimVerbs
from support.controller.lossy import FakeProgram
from support.file_locks import until_waited_for

pytestmark = pytest.mark.timeout(60)

DEFINITION = Definition("a", "base", 1 << 28, 1, None, False, False, {}, 1.0)
VERBS = ["pause", "resume", "save", "power_off", "stop", "snapshot_take", "snapshot_remove"]


class Recorder(ShimMachine):
    """A shim without a machine.

    `done`: the requests that ended, in that order. `received`: each change of state, and how many
    checkpoints there were then.
    """

    def __init__(self, location: MachineDirectory) -> None:
        super().__init__(location, DEFINITION, self._received)
        self.done: list[str] = []
        self.received: list[tuple[VmState, int]] = []
        self.may_go_on = asyncio.Event()

    def _received(self) -> None:
        self.received.append((self.status.state, len(manifests(self.directory.disk))))

    async def pause(self) -> None:
        await self.may_go_on.wait()
        self.done.append("pause")

    async def resume(self) -> None:
        self.done.append("resume")

    async def stop(self, within: float) -> None:
        self.done.append(f"stop {within:g}")


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Recorder]:
    """Return a machine that starts."""
    location = MachineDirectory(tmp_path / "a")
    location.make(DEFINITION, BrokerAddress("a", "x", path="/nowhere"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        made = Recorder(location)
        made.prepare(NodeCommands("life", FakeProgram, lambda _: None, group), goes_on=False)
        yield made


@pytest.mark.parametrize("state", [VmState.STARTING, VmState.RESTORING])
@pytest.mark.parametrize("verb", ["save", "snapshot_take", "snapshot_remove"])
async def test_what_is_not_up_stays_as_it_is(verb: str, state: VmState, machine: Recorder) -> None:
    machine._set(state)
    with pytest.raises(UsageError, match="not running"):
        await ShimVerbs(machine).table()[verb]({"name": "x"}, b"")
    assert machine.status.state is state
    assert machine.directory.status().state is state


async def test_where_it_was_saved_has_gone_when_it_runs(machine: Recorder) -> None:
    """Once it is reported as running, its saved state is gone."""
    made = Checkpoint(1, {}, {})
    write_saved(
        machine.directory.disk, SavedMachine(made, "qemu", "none", DEFINITION.shape, {}, (), None)
    )
    machine._set(VmState.RESTORING)
    machine.received.clear()
    machine.come_up("none", (), frozenset())
    assert machine.received == [(VmState.RESTORING, 1), (VmState.RUNNING, 0)]


async def test_each_waits_for_its_turn(machine: Recorder) -> None:
    verbs = ShimVerbs(machine).table()
    first = asyncio.ensure_future(verbs["pause"]({}, b""))
    second = asyncio.ensure_future(verbs["resume"]({}, b""))
    await asyncio.sleep(0)
    assert machine.done == []
    machine.may_go_on.set()
    await asyncio.gather(first, second)
    assert machine.done == ["pause", "resume"]


async def test_what_waited_while_it_ended(machine: Recorder) -> None:
    machine._finish(VmState.ABORTED, "it was struck by lightning")
    verbs = ShimVerbs(machine).table()
    assert set(verbs) == set(VERBS)
    for name, verb in verbs.items():
        if name in ("stop", "power_off", "save"):
            assert (await verb({}, b"")).table == {"state": "aborted"}
        else:
            with pytest.raises(UsageError, match="has ended in the meantime: it is aborted"):
                await verb({}, b"")
    assert machine.directory.status().state is VmState.ABORTED
    assert machine.directory.status().why == "it was struck by lightning"
    await ShimVerbs(machine).end_with_host()
    assert machine.directory.status().state is VmState.ABORTED


@pytest.mark.parametrize("within", [-1, LONGEST_STOP + 1, "1", None, [], float("nan"), 10**400])
async def test_times_that_there_are_not(within: object, machine: Recorder) -> None:
    with pytest.raises(UsageError, match="0 to 3600 s"):
        await ShimVerbs(machine).table()["stop"]({"within": within}, b"")
    assert machine.done == []


async def test_times_that_there_are(machine: Recorder) -> None:
    for given in ({}, {"within": 0}, {"within": LONGEST_STOP}):
        await ShimVerbs(machine).table()["stop"](given, b"")
    assert machine.done == ["stop 20", "stop 0", "stop 3600"]


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        ("snapshot_take", {"name": 1}),
        ("snapshot_take", {"description": None}),
        ("snapshot_remove", {}),
        ("snapshot_remove", {"name": ["x"]}),
    ],
)
async def test_names_that_are_none(verb: str, given: dict[str, object], machine: Recorder) -> None:
    with pytest.raises(UsageError):
        await ShimVerbs(machine).table()[verb](given, b"")


async def test_a_host_that_refuses(machine: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(MachineDirectory, "write_status", full)
    # What is to end ends, if that can be written down or not.
    reported = await ShimVerbs(machine).table()["power_off"]({}, b"")
    assert reported.table == {"state": "aborted"}
    assert "cannot be recorded: No space left" in machine.status.why


async def test_the_host_ends_before_it_is_up(machine: Recorder) -> None:
    await ShimVerbs(machine).end_with_host()
    status = machine.directory.status()
    assert (status.state, status.why) == (
        VmState.ABORTED,
        "it could not be saved: the machine is not running",
    )
    await machine.fail(HypervisorError("and more"))  # once is enough
    assert machine.directory.status() == status


class Stub:
    """Stands for a ManagedMachine.

    `keep` puts `new_layer` over its disk and raises `fault`. `calls`: what it was asked to do.
    """

    def __init__(self, directory: Path) -> None:
        self.session = Mock()
        self.spec = Mock(directory=directory)
        self.is_running = True
        self.has_begun = True
        self.is_saved = False
        self.fault: BoincvmError | OSError = HypervisorError("it does not want to")
        self.calls: list[str] = []
        self.disk_layers = ("disk-000000.qcow2",)
        self.new_layer = ""
        self.waits_for_turn = False

    @property
    def is_up(self) -> bool:
        return self.is_running

    def files_in_use(self) -> frozenset[str]:
        return frozenset()

    def resident(self) -> int:
        return 0

    def turn_not_waited_for(self, _: str) -> AbstractContextManager[None]:
        return nullcontext()

    async def save(
        self,
        *_: object,
        record_layers: RecordLayers,
        begins: Callable[[], None],
        **__: object,
    ) -> object:
        begins()
        if self.new_layer:
            await record_layers((*self.disk_layers, self.new_layer))
        raise self.fault

    async def go_on(self, *, paused: bool) -> None:
        self.calls.append("go on")
        if paused:
            self.calls.append("suspend")

    async def kill(self) -> None:
        self.calls.append("kill")
        self.is_running = False
        await asyncio.sleep(0)
        self.disk_layers = ()


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[tuple[ShimMachine, Stub]]:
    """Return a running machine with a stub."""
    location = MachineDirectory(tmp_path / "a")
    location.make(DEFINITION, BrokerAddress("a", "x", path="/nowhere"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        made, stub = ShimMachine(location, DEFINITION, lambda: None), Stub(location.disk)
        made.prepare(NodeCommands("life", FakeProgram, lambda _: None, group), goes_on=False)
        made._machine, made._image, made._is_up = stub, Mock(digest="none"), True  # type: ignore[assignment]
        made.come_up("none", (), frozenset())
        yield made, stub


@pytest.mark.parametrize("verb", ["save", "snapshot_take"])
@pytest.mark.parametrize("before", [VmState.RUNNING, VmState.PAUSED])
async def test_what_cannot_be_saved_is_as_before(
    verb: str, before: VmState, up: tuple[ShimMachine, Stub]
) -> None:
    machine, stub = up
    machine._set(before)
    with pytest.raises(HypervisorError, match="does not want to"):
        await ShimVerbs(machine).table()[verb]({}, b"")
    assert machine.directory.status().state is before
    assert stub.calls == ["go on"] + ["suspend"] * (before is VmState.PAUSED)


@pytest.mark.parametrize("verb", ["save", "snapshot_take"])
async def test_one_that_dies_while_it_is_saved_is_aborted_with_its_cause(
    verb: str, up: tuple[ShimMachine, Stub]
) -> None:
    machine, stub = up
    stub.is_running = False
    saving = asyncio.ensure_future(ShimVerbs(machine).table()[verb]({}, b""))
    await asyncio.sleep(0)
    assert machine.status.state is VmState.SAVING
    await machine.fail(HypervisorError("it was struck by lightning"))
    with pytest.raises(HypervisorError, match="does not want to"):
        await saving
    reported = machine.directory.status()
    assert (reported.state, reported.why) == (VmState.ABORTED, "it was struck by lightning")


@pytest.mark.parametrize("verb", ["save", "snapshot_take"])
async def test_a_layer_to_which_it_may_have_written_is_its_disk_when_it_dies(
    verb: str, up: tuple[ShimMachine, Stub]
) -> None:
    machine, stub = up
    layers = ("disk-000000.qcow2", "disk-000001.qcow2")
    for name in layers:
        (machine.directory.disk / name).touch()
    stub.is_running, stub.new_layer = False, layers[1]
    saving = asyncio.ensure_future(ShimVerbs(machine).table()[verb]({}, b""))
    await asyncio.sleep(0)
    assert machine.directory.status().layers == layers  # so also if the shim were killed now
    await machine.fail(HypervisorError("it was struck by lightning"))
    with pytest.raises(HypervisorError, match="does not want to"):
        await saving
    assert machine.directory.status().layers == layers


async def test_a_layer_that_was_not_taken_into_use(up: tuple[ShimMachine, Stub]) -> None:
    machine, stub = up
    stub.new_layer = "disk-000001.qcow2"
    with pytest.raises(HypervisorError, match="does not want to"):
        await ShimVerbs(machine).table()["snapshot_take"]({}, b"")
    assert machine.directory.status().layers == stub.disk_layers


async def test_one_whose_state_cannot_be_written_down_is_aborted_at_once(
    up: tuple[ShimMachine, Stub],
) -> None:
    machine, stub = up
    stub.is_running, stub.is_saved = False, True
    stub.fault = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(HostDiskFullError, match="No space left"):
        await ShimVerbs(machine).table()["save"]({}, b"")
    assert machine.is_over
    assert machine.directory.status().state is VmState.ABORTED
    assert "No space left" in machine.directory.status().why


async def test_the_first_cause_of_an_end_counts(up: tuple[ShimMachine, Stub]) -> None:
    machine, stub = up
    async with asyncio.TaskGroup() as group:
        group.create_task(machine.power_off())
        await asyncio.sleep(0)
        group.create_task(machine.fail(HypervisorError("it was killed")))
    assert stub.calls == ["kill"]
    assert machine.directory.status().state is VmState.POWERED_OFF
    # A verb that was at work when it ended does not bring it back.
    machine._set(VmState.RUNNING)
    assert machine.directory.status().state is VmState.POWERED_OFF


async def test_pulling_the_plug_waits_for_nothing(up: tuple[ShimMachine, Stub]) -> None:
    machine, _ = up
    verbs = ShimVerbs(machine)
    async with verbs._turn:
        assert (await verbs.table()["power_off"]({}, b"")).table == {"state": "powered_off"}


class Waiting:
    """A machine of which snapshots wait, because another machine of this host has its turn."""

    def __init__(self, machine: ShimMachine, managed: ManagedMachine) -> None:
        self.machine = machine
        self.fake = cast(FakeMachine, managed.session.machine)
        self.verbs = ShimVerbs(machine)
        self.table = self.verbs.table()

    async def snapshots(self) -> list[asyncio.Task[Reply]]:
        """Request two snapshots: one waits for the other machine, and one for that one."""
        taken = [asyncio.ensure_future(self.table["snapshot_take"]({}, b"")) for _ in range(2)]
        await until_waited_for(turn_lock(), taken[0])
        return taken


@pytest.fixture
async def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Waiting]:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    location = MachineDirectory(tmp_path / "a")
    location.make(DEFINITION, BrokerAddress("a", "x", path="/nowhere"))
    location.disk.mkdir(exist_ok=True)
    none = tmp_path / "none"
    spec = MachineSpec(location.disk, none, none, none, memory=1 << 28, cpus=1)
    async with (
        asyncio.timeout(20),
        asyncio.TaskGroup() as group,
        opened(FakeDriver(), spec) as managed,
        CheckpointTurn().taken(),
    ):
        made = ShimMachine(location, DEFINITION, lambda: None)
        made.prepare(NodeCommands("life", FakeProgram, lambda _: None, group), goes_on=False)
        made._machine, made._image, made._is_up = managed, Mock(digest="none"), True
        made.come_up("none", (), frozenset())
        yield Waiting(made, managed)


@pytest.mark.parametrize("verb", ["pause", "save", "stop"])
async def test_it_waits_for_no_snapshot_that_waits(verb: str, waiting: Waiting) -> None:
    taken = await waiting.snapshots()
    reply = await waiting.table[verb]({"within": 0}, b"")
    expected = {"pause": "paused", "save": "saved", "stop": "powered_off"}
    assert reply.table == {"state": expected[verb]}
    for snapshot in taken:
        with pytest.raises(HypervisorError, match="checkpoint of another machine: the machine is"):
            await snapshot


async def test_the_host_shuts_down_while_snapshots_wait(waiting: Waiting) -> None:
    first, second = await waiting.snapshots()
    await waiting.verbs.end_with_host()
    assert waiting.machine.directory.status().state is VmState.SAVED
    with pytest.raises(HypervisorError, match="the host is shutting down"):
        await first
    with pytest.raises(HostError, match="the host is shutting down"):
        await second


async def test_a_machine_runs_programs_while_its_snapshot_waits(waiting: Waiting) -> None:
    taken = await waiting.snapshots()
    commands = waiting.machine.commands
    assert commands is not None
    assert waiting.machine.status.state is VmState.RUNNING
    assert commands._held is None
    for snapshot in taken:
        snapshot.cancel()
    await asyncio.gather(*taken, return_exceptions=True)
    assert waiting.machine.status.state is VmState.RUNNING


async def test_a_paused_machine_whose_snapshot_is_given_up_does_not_run(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await waiting.table["pause"]({}, b"")
    resume = AsyncMock()
    monkeypatch.setattr(waiting.fake, "resume", resume)
    taken = await waiting.snapshots()
    await waiting.table["pause"]({}, b"")
    await asyncio.gather(*taken, return_exceptions=True)
    assert waiting.machine.status.state is VmState.PAUSED
    assert not resume.called


async def _end(taken: list[asyncio.Task[Reply]]) -> None:
    """End what waits, which must not have ended by itself."""
    assert not any(snapshot.done() for snapshot in taken)
    for snapshot in taken:
        snapshot.cancel()
    await asyncio.gather(*taken, return_exceptions=True)


async def test_a_snapshot_is_removed_while_another_one_waits(waiting: Waiting) -> None:
    made = Checkpoint(1, {}, {})
    saved = SavedMachine(made, "qemu", "none", DEFINITION.shape, {}, (), None)
    write_saved(waiting.machine.directory.disk, saved)
    waiting.machine.snapshots.add("former", "", saved, [])
    taken = await waiting.snapshots()
    reply = await waiting.table["snapshot_remove"]({"name": "former"}, b"")
    assert reply.table == {"state": "running"}
    assert waiting.machine.snapshots.all() == []
    assert manifests(waiting.machine.directory.disk) == []
    await _end(taken)


async def test_a_machine_is_resumed_while_a_snapshot_of_it_waits(waiting: Waiting) -> None:
    await waiting.table["pause"]({}, b"")
    taken = await waiting.snapshots()
    assert (await waiting.table["resume"]({}, b"")).table == {"state": "running"}
    assert waiting.fake.state is MachineState.RUNNING
    for snapshot in taken:
        with pytest.raises(HypervisorError, match="checkpoint of another machine: the machine is"):
            await snapshot
    assert waiting.machine.status.state is VmState.RUNNING


async def test_to_resume_one_that_runs_ends_no_wait(waiting: Waiting) -> None:
    """As `boincvm resume all` may."""
    taken = await waiting.snapshots()
    assert (await waiting.table["resume"]({}, b"")).table == {"state": "running"}
    await _end(taken)
