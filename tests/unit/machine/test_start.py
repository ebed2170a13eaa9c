"""A machine starts from the first source that works, and reports why others did not."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import pytest

from boincvm.bus.stomp import Frame
from boincvm.errors import (
    BoincvmError,
    GuestDiedError,
    GuestNeverBootedError,
    HostDiskFullError,
    HypervisorError,
    HypervisorKilledError,
    HypervisorMissingError,
    UsageError,
)
from boincvm.guestlink.link import GuestLink
from boincvm.hypervisor.contract import (
    Checkpoint,
    EndCause,
    MachineSpec,
    MachineState,
)
from boincvm.hypervisor.fake.driver import FakeDriver, FakeMachine
from boincvm.job.model import Limits, MachineShape, PortForward
from boincvm.machine import managed
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.golden.snapshots import TABLE, Found, Golden
from boincvm.machine.managed import ManagedMachine
from boincvm.machine.saved_machine import SavedMachine
from boincvm.machine.settings import Settings
from boincvm.machine.start_source import Boot, Clone, Rejected, Restore, StartSource

pytestmark = pytest.mark.timeout(30)

LINK: dict[str, object] = {"next_call": 1}
SNAPSHOT = "golden snapshot"


class Driver(FakeDriver):
    """A driver whose machines can be cloned; `fault` is raised when the machine with that number
    starts."""

    def __init__(self) -> None:
        super().__init__()
        self.golden_snapshots = self
        self.faults: dict[int, BoincvmError] = {}
        self.silent: set[int] = set()
        """Numbers of machines whose guests never speak."""
        self.has_started = asyncio.Event()

    def machine(self, spec: MachineSpec) -> FakeMachine:
        number = len(self.machines)
        machine = super().machine(spec)
        machine._boots = number not in self.silent
        machine.display = Mock() if spec.display else None
        start = machine.start

        async def start_or_fail() -> object:
            if number in self.faults:
                raise self.faults[number]
            channel = await start()
            self.has_started.set()
            return channel

        machine.start = start_or_fail  # type: ignore[method-assign,assignment]
        return machine

    def identity(self) -> dict[str, str]:
        return {}

    def clone(self, spec: MachineSpec, golden: Path) -> FakeMachine:
        assert (golden / TABLE).exists()
        machine = self.machine(spec)
        machine.state = MachineState.SAVED
        machine.guest._held = []  # it is quiet, and goes on when it is told
        return machine


@pytest.fixture(autouse=True)
def golden_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOINCVM_GOLDEN", raising=False)


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    (tmp_path / "machine").mkdir()
    nowhere = tmp_path / "none"
    return MachineSpec(tmp_path / "machine", nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)


@pytest.fixture
def golden(tmp_path: Path) -> Golden:
    directory = tmp_path / "golden"
    directory.mkdir()
    (directory / TABLE).write_text("{}")
    return Golden(directory, LINK)


def clone(found: Golden | str) -> Clone:
    """Return a copy of that snapshot, or the reason why there is none."""
    return Clone(Mock(), Found(found) if isinstance(found, Golden) else Found(None, found))


def saved(driver: str = "fake") -> SavedMachine:
    return SavedMachine(
        Checkpoint(7, {}, {}), driver, "digest", MachineShape(), link=LINK, steps=(), task=None
    )


async def start(
    driver: FakeDriver, spec: MachineSpec, *sources: StartSource, boot: float = 5.0
) -> ManagedMachine:
    machine = ManagedMachine(driver, spec, Settings(Limits(boot=boot)))
    async with asyncio.timeout(10):
        try:
            await machine.start(sources)
        except BaseException:
            await machine.close()
            raise
    return machine


def fake(machine: ManagedMachine) -> FakeMachine:
    return cast(FakeMachine, machine.session.machine)


async def test_a_golden_snapshot_that_works(
    driver: Driver, spec: MachineSpec, golden: Golden
) -> None:
    machine = await start(driver, spec, clone(golden), Boot())
    assert (machine.is_cold, machine.rejected, machine.lacks_golden) == (False, [], False)
    assert machine.is_answering
    assert len(driver.machines) == 1
    await machine.close()
    assert golden.directory.exists()


async def test_a_machine_with_a_graphics_card_of_the_host_is_no_copy(
    driver: Driver, spec: MachineSpec, golden: Golden
) -> None:
    machine = await start(driver, spec._replace(gpu="0000:01:00.0"), clone(golden), Boot())
    assert (machine.is_cold, machine.rejected, machine.lacks_golden) == (True, [], False)
    await machine.close()
    assert golden.directory.exists()


@pytest.mark.parametrize("why", ["", "state is not as it was written"])
async def test_one_that_is_not_there(why: str, driver: Driver, spec: MachineSpec) -> None:
    machine = await start(driver, spec, clone(why), Boot())
    assert machine.is_cold
    assert machine.lacks_golden  # so that one is made
    assert machine.cold_because == why
    assert machine.rejected == ([Rejected(SNAPSHOT, why)] if why else [])
    assert len(driver.machines) == 1
    await machine.close()


async def test_one_that_does_not_start(driver: Driver, spec: MachineSpec, golden: Golden) -> None:
    driver.faults[0] = HypervisorError("QEMU did not start: no such state")
    machine = await start(driver, spec, clone(golden), Boot())
    assert machine.is_cold
    assert machine.cold_because == "QEMU did not start: no such state"
    assert machine.lacks_golden
    assert not golden.directory.exists()  # nobody tries it again
    assert [one.state for one in driver.machines] == [MachineState.DESTROYED, MachineState.RUNNING]
    assert spec.directory.is_dir()
    await machine.close()


async def test_one_whose_guest_says_nothing(
    driver: Driver, spec: MachineSpec, golden: Golden
) -> None:
    driver.silent.add(0)
    machine = await start(driver, spec, clone(golden), Boot(), boot=0.2)
    assert machine.rejected == [
        Rejected(SNAPSHOT, "the guest's agent did not answer within 0.2 s of the start")
    ]
    assert not golden.directory.exists()
    await machine.close()


async def test_one_that_ends_while_it_starts(
    driver: Driver, spec: MachineSpec, golden: Golden
) -> None:
    driver.silent.add(0)
    starting = asyncio.ensure_future(start(driver, spec, clone(golden), Boot()))
    await driver.has_started.wait()
    driver.machines[0].end(EndCause.FAILED, "signal 11 ended it")
    machine = await starting
    assert "signal 11 ended it" in machine.cold_because
    assert not golden.directory.exists()
    await machine.close()


@pytest.mark.parametrize("is_told_late", [False, True])
async def test_one_that_others_kill_while_it_starts(
    is_told_late: bool, driver: Driver, spec: MachineSpec, golden: Golden
) -> None:
    """The snapshot is not at fault, even if the guest's link ends first."""
    driver.silent.add(0)
    starting = asyncio.ensure_future(start(driver, spec, clone(golden), Boot()))
    await driver.has_started.wait()
    killed = driver.machines[0]
    if is_told_late:
        assert killed._guest_end is not None
        killed._guest_end.close()
        done, _ = await asyncio.wait([starting], timeout=0.1)
        assert not done
    killed.end(EndCause.KILLED, "signal 9 ended it")
    with pytest.raises(HypervisorKilledError, match="signal 9 ended it"):
        await starting
    assert golden.directory.exists()
    assert len(driver.machines) == 1


async def test_a_checkpoint_whose_machine_others_kill_while_it_wakes(
    driver: Driver, spec: MachineSpec
) -> None:
    """It is not a SavedMachineError, for which its owner would let the work start over."""
    first = await start(driver, spec, Boot())
    checkpoint, link, _ = await first.save(7, lambda: None, last=True)
    driver.silent.add(len(driver.machines))
    source = Restore(saved()._replace(checkpoint=checkpoint, link=link), _nothing)
    driver.has_started.clear()
    starting = asyncio.ensure_future(start(driver, spec, source))
    await driver.has_started.wait()
    driver.machines[-1].end(EndCause.KILLED, "signal 9 ended it")
    with pytest.raises(HypervisorKilledError, match="signal 9 ended it"):
        await starting


async def test_where_nothing_works_the_last_one_tells(
    driver: Driver, spec: MachineSpec, golden: Golden
) -> None:
    driver.faults = {0: HypervisorError("no state"), 1: HypervisorError("no kernel")}
    machine = ManagedMachine(driver, spec)
    with pytest.raises(HypervisorError, match="no kernel"):
        await machine.start([clone(golden), Boot()])
    assert machine.rejected == [Rejected(SNAPSHOT, "no state")]
    await machine.close()


async def test_all_three(driver: Driver, spec: MachineSpec, golden: Golden) -> None:
    """There is no such checkpoint, and the snapshot is unusable."""
    driver.faults[0] = HypervisorError("no state")
    machine = await start(driver, spec, Restore(saved(), _nothing), clone(golden), Boot())
    assert [one.source for one in machine.rejected] == ["checkpoint 7", SNAPSHOT]
    assert "checkpoint 7 is not in" in machine.rejected[0].reason
    await machine.close()


def _nothing(_link: object) -> None:
    """Return no programs."""


async def test_a_checkpoint_alone(driver: Driver, spec: MachineSpec) -> None:
    with pytest.raises(SavedMachineError, match=r"does not resume: checkpoint 7 is not in"):
        await start(driver, spec, Restore(saved(), _nothing))
    with pytest.raises(SavedMachineError, match="saved by the driver other"):
        await start(driver, spec, Restore(saved("other"), _nothing))
    machine = await start(driver, spec, Restore(saved("other"), _nothing), Boot())
    assert machine.rejected[0].reason == "it was saved by the driver other"
    await machine.close()


async def test_a_checkpoint_that_works(driver: Driver, spec: MachineSpec) -> None:
    """Its programs are attached before its guest resumes."""
    first = await start(driver, spec, Boot())
    checkpoint, link, _ = await first.save(7, lambda: None, last=True)
    seen: list[MachineState] = []
    again = ManagedMachine(driver, spec)
    state = saved()._replace(checkpoint=checkpoint, link=link)
    await again.start([Restore(state, lambda _: seen.append(fake(again).state))])
    assert seen == [MachineState.PAUSED]
    assert fake(again).state is MachineState.RUNNING
    assert not again.is_cold
    await again.close()


async def test_a_checkpoint_whose_owner_wakes_it(driver: Driver, spec: MachineSpec) -> None:
    first = await start(driver, spec, Boot())
    checkpoint, link, _ = await first.save(7, lambda: None, last=True)
    again = ManagedMachine(driver, spec)
    await again.start([Restore(saved()._replace(checkpoint=checkpoint, link=link))])
    await again.resume()
    assert fake(again).state is MachineState.PAUSED
    assert not again.is_answering
    await again.wake()
    assert fake(again).state is MachineState.RUNNING
    assert again.is_answering
    await again.close()


async def test_whatever_goes_on_from_a_disk_is_given_what_is_its_own(
    driver: Driver, spec: MachineSpec, golden: Golden
) -> None:
    """Copies of one machine would have the same random numbers and hardware address."""
    spec = spec._replace(network=True, host_name="fold-7")

    async def restore(attach: Callable[[GuestLink], None] | None) -> Restore:
        first = await start(driver, spec, Boot())
        checkpoint, link, _ = await first.save(7, lambda: None, last=True)
        return Restore(saved()._replace(checkpoint=checkpoint, link=link), attach)

    given: list[dict[str, str]] = []
    for way in ("at once", "woken", "copied") * 2:
        attach = _nothing if way == "at once" else None
        source = clone(golden) if way == "copied" else await restore(attach)
        machine = ManagedMachine(driver, spec)
        await machine.start([source])
        if way == "woken":
            await machine.wake()
        given.append(fake(machine).guest.attached_with)
        await machine.close()
        spec.directory.mkdir(exist_ok=True)
    assert {len(bytes.fromhex(one["entropy"])) for one in given} == {64}
    assert {one["host-name"] for one in given} == {"fold-7"}
    for name in ("entropy", "hardware-address"):
        assert len({one[name] for one in given}) == len(given)


async def test_what_is_no_source_s_fault_ends_the_start(
    driver: Driver, spec: MachineSpec, golden: Golden
) -> None:
    driver.faults[0] = HypervisorMissingError("QEMU is not installed any more")
    with pytest.raises(HypervisorMissingError):
        await start(driver, spec, clone(golden), Boot())
    assert golden.directory.exists()
    assert len(driver.machines) == 1


async def test_a_copy_for_which_the_disk_has_no_room(
    driver: Driver, spec: MachineSpec, golden: Golden
) -> None:
    """It boots, which may need less; the snapshot is not at fault."""
    driver.faults[0] = HostDiskFullError("the host's disk is full")
    machine = await start(driver, spec, clone(golden), Boot())
    assert machine.cold_because == "the host's disk is full"
    assert driver.machines[0].state is MachineState.DESTROYED
    assert golden.directory.exists()
    await machine.close()


@pytest.mark.parametrize("is_copy", [False, True])
async def test_neither_fits_on_the_disk(
    driver: Driver, spec: MachineSpec, golden: Golden, is_copy: bool
) -> None:
    driver.faults = dict.fromkeys(range(2), HostDiskFullError("the host's disk is full"))
    with pytest.raises(HostDiskFullError):
        await start(driver, spec, *([clone(golden)] if is_copy else []), Boot())
    assert golden.directory.exists()


async def test_a_full_disk_loses_no_checkpoint(driver: Driver, spec: MachineSpec) -> None:
    driver.faults[0] = HostDiskFullError("the host's disk is full")
    with pytest.raises(HostDiskFullError):
        await start(driver, spec, Restore(saved()), Boot())
    assert len(driver.machines) == 1


async def test_one_that_is_killed_while_it_starts(
    driver: Driver, spec: MachineSpec, golden: Golden
) -> None:
    """Nothing else is tried, and the snapshot is not at fault."""
    driver.silent.add(0)
    machine = ManagedMachine(driver, spec)
    starting = asyncio.ensure_future(machine.start([clone(golden), Boot()]))
    await driver.has_started.wait()
    await machine.kill()
    with pytest.raises(GuestDiedError, match="the machine has ended"):
        await starting
    assert golden.directory.exists()
    assert len(driver.machines) == 1
    await machine.close()


async def test_one_that_was_killed_before_does_not_start(driver: Driver, spec: MachineSpec) -> None:
    machine = ManagedMachine(driver, spec)
    await machine.kill()
    with pytest.raises(GuestDiedError, match="the machine has ended"):
        await machine.start([Boot()])
    assert driver.machines[0].state is MachineState.DEFINED


@pytest.mark.parametrize("what", ["layers", "display", "switch", "driver"])
async def test_machines_that_are_no_copies(
    what: str, spec: MachineSpec, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver: FakeDriver = Driver()
    match what:
        case "layers":
            spec = spec._replace(layers=("disk-000000.qcow2",))
        case "display":
            spec = spec._replace(display=True)
        case "switch":
            monkeypatch.setenv("BOINCVM_GOLDEN", "no")
        case "driver":
            driver = FakeDriver()
    machine = await start(driver, spec, clone(golden), Boot())
    assert (machine.is_cold, machine.rejected, machine.lacks_golden) == (True, [], False)
    await machine.close()


async def test_paused_time_is_no_part_of_the_limit(driver: Driver, spec: MachineSpec) -> None:
    driver.silent.add(0)
    machine = ManagedMachine(driver, spec, Settings(Limits(boot=0.2)))
    await machine.suspend()
    starting = asyncio.ensure_future(machine.start([Boot()]))
    done, _ = await asyncio.wait([starting], timeout=0.6)
    assert not done
    assert driver.machines[0].state is MachineState.PAUSED
    await machine.resume()
    with pytest.raises(GuestNeverBootedError, match=r"within 0\.2 s"):
        await asyncio.wait_for(starting, 10)
    await machine.close()


async def test_there_must_be_a_source(driver: Driver, spec: MachineSpec) -> None:
    with pytest.raises(HypervisorError, match="nothing to start the machine from"):
        await ManagedMachine(driver, spec).start([clone("")])


@pytest.mark.parametrize("wanted", ["network", "display"])
async def test_what_the_driver_has_not_is_reported_before_anything_starts(
    wanted: str, spec: MachineSpec
) -> None:
    driver = FakeDriver()
    asked = spec._replace(**{wanted: True})
    if wanted == "network":
        make = driver.machine
        driver.machine = lambda spec: _without_network(make(spec))  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=r"a machine of the driver fake has no (network|screen)"):
        await ManagedMachine(driver, asked).start([Boot()])
    assert driver.machines[0].state is MachineState.DEFINED


async def test_ports_that_the_driver_cannot_forward(spec: MachineSpec) -> None:
    """They are not ignored silently."""
    asked = spec._replace(network=True, forwards=(PortForward(8080, 80),))
    driver = FakeDriver()
    with pytest.raises(UsageError, match="the driver fake has no port forwarding"):
        await ManagedMachine(driver, asked).start([Boot()])
    assert driver.machines[0].state is MachineState.DEFINED


async def test_more_processors_than_the_driver_has(spec: MachineSpec) -> None:
    driver = FakeDriver()
    driver.most_cpus = 2
    machine = await start(driver, spec._replace(cpus=2), Boot())
    await machine.close()
    with pytest.raises(UsageError, match="at most 2 processors, but 3 were requested"):
        await ManagedMachine(driver, spec._replace(cpus=3)).start([Boot()])


def _without_network(machine: FakeMachine) -> FakeMachine:
    class Without(FakeMachine):
        network = None

    machine.__class__ = Without
    return machine


async def test_one_that_cannot_be_kept_says_so_and_runs_on(spec: MachineSpec) -> None:
    driver = FakeDriver()
    machine = await start(driver, spec, Boot())
    assert machine.can_be_saved

    class Without(FakeMachine):
        checkpointing = None  # type: ignore[assignment]

    driver.machines[0].__class__ = Without
    assert not machine.can_be_saved
    for last in (False, True):
        with pytest.raises(HypervisorError, match="cannot be saved"):
            await machine.save(1, lambda: None, last=last)
    assert driver.machines[0].state is MachineState.RUNNING
    await machine.close()


@pytest.mark.parametrize(("late", "clocks"), [(0.0, 1), (1000.0, 0)])
async def test_a_guest_that_was_slow_to_answer_gets_the_time_again(
    late: float, clocks: int, driver: Driver, spec: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed, "_LATE", late)
    machine = await start(driver, spec, Boot())
    guest, kinds = fake(machine).guest, list[str]()
    handle = guest._handle

    def note(kind: str, call: str, frame: Frame) -> None:
        kinds.append(kind)
        handle(kind, call, frame)

    guest._handle = note  # type: ignore[method-assign]
    async with asyncio.timeout(10):
        await machine.session.link.quiesce(None)  # all that was sent before has come then
    assert kinds.count("clock") == clocks
    await machine.close()
