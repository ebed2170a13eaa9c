"""What a shim can be told: in turn, checked, and in words when it cannot be done."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import BoincvmError, HostDiskFullError, HypervisorError, UsageError
from boincvm.hypervisor.contract import Checkpoint, RecordLayers
from boincvm.machine.saved_machine import SavedMachine, manifests, write_saved
from boincvm.node.commands import NodeCommands
from boincvm.shim.machine import ShimMachine
from boincvm.shim.machine_directory import Definition, MachineDirectory
from boincvm.shim.verbs import LONGEST_STOP, ShimVerbs
from support.controller.lossy import FakeProgram

DEFINITION = Definition("a", "base", 1 << 28, 1, None, False, False, {}, 1.0)
VERBS = ["pause", "resume", "save", "power_off", "stop", "snapshot_take", "snapshot_remove"]


class Told(ShimMachine):
    """Has no machine. `done`: what came to an end, in that order. `heard`: each change of state,
    and how many checkpoints there were then."""

    def __init__(self, place: MachineDirectory) -> None:
        super().__init__(place, DEFINITION, self._heard)
        self.done: list[str] = []
        self.heard: list[tuple[VmState, int]] = []
        self.may_go_on = asyncio.Event()

    def _heard(self) -> None:
        self.heard.append((self.status.state, len(manifests(self.directory.disk))))

    async def pause(self) -> None:
        await self.may_go_on.wait()
        self.done.append("pause")

    async def resume(self) -> None:
        self.done.append("resume")

    async def stop(self, within: float) -> None:
        self.done.append(f"stop {within:g}")


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Told]:
    """It starts."""
    place = MachineDirectory(tmp_path / "a")
    place.make(DEFINITION, BrokerAddress("a", "x", path="/nowhere"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        made = Told(place)
        made.prepare(NodeCommands("life", FakeProgram, lambda _: None, group), goes_on=False)
        yield made


@pytest.mark.parametrize("state", [VmState.STARTING, VmState.RESTORING])
@pytest.mark.parametrize("verb", ["save", "snapshot_take", "snapshot_remove"])
async def test_what_is_not_up_stays_as_it_is(verb: str, state: VmState, machine: Told) -> None:
    machine._set(state)
    with pytest.raises(UsageError, match="not running"):
        await ShimVerbs(machine).table()[verb]({"name": "x"}, b"")
    assert machine.status.state is state
    assert machine.directory.status().state is state


async def test_where_it_was_saved_has_gone_when_it_runs(machine: Told) -> None:
    """Whoever waits for its running finds nothing of that."""
    made = Checkpoint(1, {}, {})
    write_saved(
        machine.directory.disk, SavedMachine(made, "qemu", "none", DEFINITION.shape, {}, (), None)
    )
    machine._set(VmState.RESTORING)
    machine.heard.clear()
    machine.come_up("none", (), frozenset())
    assert machine.heard == [(VmState.RESTORING, 1), (VmState.RUNNING, 0)]


async def test_each_waits_for_its_turn(machine: Told) -> None:
    verbs = ShimVerbs(machine).table()
    first = asyncio.ensure_future(verbs["pause"]({}, b""))
    second = asyncio.ensure_future(verbs["resume"]({}, b""))
    await asyncio.sleep(0)
    assert machine.done == []
    machine.may_go_on.set()
    await asyncio.gather(first, second)
    assert machine.done == ["pause", "resume"]


async def test_what_waited_while_it_ended(machine: Told) -> None:
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
async def test_times_that_there_are_not(within: object, machine: Told) -> None:
    with pytest.raises(UsageError, match="0 to 3600 s"):
        await ShimVerbs(machine).table()["stop"]({"within": within}, b"")
    assert machine.done == []


async def test_times_that_there_are(machine: Told) -> None:
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
async def test_names_that_are_none(verb: str, given: dict[str, object], machine: Told) -> None:
    with pytest.raises(UsageError):
        await ShimVerbs(machine).table()[verb](given, b"")


async def test_a_host_that_refuses(machine: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(MachineDirectory, "write_status", full)
    # What is to end ends, if that can be written down or not.
    told = await ShimVerbs(machine).table()["power_off"]({}, b"")
    assert told.table == {"state": "aborted"}
    assert "cannot be written down: No space left" in machine.status.why


async def test_the_host_ends_before_it_is_up(machine: Told) -> None:
    await ShimVerbs(machine).end_with_host()
    status = machine.directory.status()
    assert (status.state, status.why) == (
        VmState.ABORTED,
        "it could not be saved: the machine is not running",
    )
    await machine.fail(HypervisorError("and more"))  # once is enough
    assert machine.directory.status() == status


class Stub:
    """In place of a ManagedMachine: `keep` puts `new_layer` over its disk and does what `fault`
    says. `calls`: what it was told."""

    def __init__(self, directory: Path) -> None:
        self.session = Mock()
        self.spec = Mock(directory=directory)
        self.is_running = True
        self.is_saved = False
        self.fault: BoincvmError | OSError = HypervisorError("it does not want to")
        self.calls: list[str] = []
        self.disk_layers = ("disk-000000.qcow2",)
        self.new_layer = ""

    @property
    def is_up(self) -> bool:
        return self.is_running

    def files_in_use(self) -> frozenset[str]:
        return frozenset()

    def resident(self) -> int:
        return 0

    async def save(self, *_: object, record_layers: RecordLayers, **__: object) -> object:
        if self.new_layer:
            await record_layers((*self.disk_layers, self.new_layer))
        raise self.fault

    async def go_on(self) -> None:
        self.calls.append("go on")

    async def suspend(self) -> None:
        self.calls.append("suspend")

    async def kill(self) -> None:
        self.calls.append("kill")
        self.is_running = False
        await asyncio.sleep(0)
        self.disk_layers = ()


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[tuple[ShimMachine, Stub]]:
    """A machine that runs, with a stub for it."""
    place = MachineDirectory(tmp_path / "a")
    place.make(DEFINITION, BrokerAddress("a", "x", path="/nowhere"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        made, stub = ShimMachine(place, DEFINITION, lambda: None), Stub(place.disk)
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
    told = machine.directory.status()
    assert (told.state, told.why) == (VmState.ABORTED, "it was struck by lightning")


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
    # Whoever was at work when it ended does not bring it back.
    machine._set(VmState.RUNNING)
    assert machine.directory.status().state is VmState.POWERED_OFF


async def test_pulling_the_plug_waits_for_nothing(up: tuple[ShimMachine, Stub]) -> None:
    machine, _ = up
    verbs = ShimVerbs(machine)
    async with verbs._turn:
        assert (await verbs.table()["power_off"]({}, b"")).table == {"state": "powered_off"}
