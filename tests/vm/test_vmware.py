"""VMware machines, run by a stand-in for VMware (support/vmware): faults, and changes from outside.
tests/hypervisor tests what all drivers' machines do."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from boincvm.errors import HostDiskFullError, HypervisorError
from boincvm.guestlink.link import GuestLink
from boincvm.host.locks import open_lock
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import EndCause, MachineEnd, MachineSpec, MachineState
from boincvm.hypervisor.registry import find_driver, open_driver
from boincvm.hypervisor.verdict import Ability
from boincvm.hypervisor.vmware import vmdk
from boincvm.hypervisor.vmware.driver import VMwareDriver
from boincvm.hypervisor.vmware.installation import Product
from boincvm.hypervisor.vmware.machine import VMwareMachine
from boincvm.hypervisor.vmware.vmrun import VMwareError
from boincvm.paths import cache_directory
from support.bench import kill, wait_for_end
from support.driven import Running, answering, shell
from support.exit_statuses import TELLS_EXITS
from support.small_disk import needs_namespaces, small_disk
from support.vmware.fixture import StandIn, vmware_installed

pytestmark = pytest.mark.timeout(400)
LIMIT = 120.0
"""Seconds to wait for a machine, at most."""
MakeMachine = Callable[[], VMwareMachine]


@pytest.fixture
def vmware() -> Iterator[StandIn]:
    with vmware_installed() as stand_in:
        yield stand_in


@pytest.fixture
async def driver(vmware: StandIn, base_image: Path) -> VMwareDriver:
    driver = await open_driver("vmware", base_image / "kernel")
    assert isinstance(driver, VMwareDriver)
    return driver


@pytest.fixture
def spec(base_image: Path, tmp_path: Path) -> MachineSpec:
    directory = tmp_path / "a machine, |its place: odd=yes"
    directory.mkdir(mode=0o700)
    files = (base_image / "kernel", base_image / "initrd", base_image / "root.qcow2")
    return MachineSpec(directory, *files, memory=256 << 20, cpus=1)


@pytest.fixture
async def machine(driver: VMwareDriver, spec: MachineSpec) -> AsyncIterator[VMwareMachine]:
    """Yield a machine that is destroyed after the test, when nothing of it may be left."""
    async with AsyncExitStack() as stack:
        one = driver.machine(spec)
        stack.push_async_callback(one.destroy)
        yield one
    assert list(spec.directory.iterdir()) == []
    assert one.home is None


@pytest.fixture
def theirs(vmware: StandIn, tmp_path: Path) -> Iterator[Path]:
    """Run a machine of the user's own, which has to keep running."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    definition = directory / "boincvm-theirs.vmx"
    start_idle(vmware, definition)
    yield definition
    assert str(definition) in vmware.running()
    assert vmware("stop", definition, "hard").returncode == 0


def start_idle(vmware: StandIn, definition: Path) -> None:
    """Start a machine that boots nothing."""
    directory = definition.parent
    (directory / "base.raw").write_bytes(bytes(1 << 20))
    vmdk.write_base(directory / "base.vmdk", "base.raw", 1 << 20)
    vmdk.write_layer(directory / "disk.vmdk", 1 << 20, "base.vmdk", vmdk.BASE_CID)
    definition.write_text(
        f'memsize = "16"\nnumvcpus = "1"\nnvme0:0.fileName = "{directory / "disk.vmdk"}"\n'
    )
    done = vmware("start", definition, "nogui")
    assert done.returncode == 0, done.stdout


async def end_of(machine: VMwareMachine) -> MachineEnd:
    async with asyncio.timeout(LIMIT):
        return await machine.ended()


async def test_a_definition_that_another_has_open(machine: VMwareMachine) -> None:
    await machine.create()
    assert machine.home is not None
    lock = machine.home.definition.with_name(f"{machine.home.definition.name}.lck")
    lock.mkdir()
    (lock / "M12345.lck").write_text(str(os.getpid()))
    with pytest.raises(VMwareError, match="VMware refused start: The file is already in use") as at:
        await machine.start()
    assert "close the machine there" in at.value.hint


async def test_a_lock_that_a_crash_has_left(machine: VMwareMachine) -> None:
    await machine.create()
    assert machine.home is not None
    lock = machine.home.definition.with_name(f"{machine.home.definition.name}.lck")
    lock.mkdir()
    (lock / "M12345.lck").write_text(str((1 << 22) + 1))  # no process has such a number
    async with answering(machine) as link:
        assert await shell(link, "echo alive") == "alive\n"


async def test_a_definition_that_somebody_removes(machine: VMwareMachine) -> None:
    await machine.create()
    assert machine.home is not None
    machine.home.definition.unlink()
    with pytest.raises(VMwareError, match="VMware refused start: A file was not found"):
        await machine.start()


async def test_what_others_do_to_it(vmware: StandIn, machine: VMwareMachine, theirs: Path) -> None:
    """Somebody else pauses, resumes and powers it off."""
    async with answering(machine) as link:
        assert machine.home is not None
        definition = machine.home.definition
        assert sorted(vmware.running()) == sorted([str(definition), str(theirs)])
        assert vmware("pause", definition).returncode == 0
        await machine.pause()
        await machine.resume()
        assert await shell(link, "echo alive") == "alive\n"
        assert vmware("stop", definition, "hard").returncode == 0
        assert (await end_of(machine)).cause is EndCause.POWERED_OFF


async def test_a_person_suspends_it(vmware: StandIn, machine: VMwareMachine) -> None:
    async with answering(machine):
        assert machine.home is not None
        assert vmware("suspend", machine.home.definition, "hard").returncode == 0
        end = await end_of(machine)
    assert end == MachineEnd(EndCause.KILLED, "somebody else suspended the machine in VMware")


async def test_a_guest_that_reboots(vmware: StandIn, machine: VMwareMachine) -> None:
    """The boot disc's loader, started by a computer's firmware, reports it."""
    vmware.really_boot()
    link = await GuestLink.open(await machine.start(), silence_limit=LIMIT)
    try:
        async with asyncio.timeout(LIMIT):
            await asyncio.wait((link.ready, link.failure), return_when=asyncio.FIRST_COMPLETED)
        assert link.ready.done(), link.failure.result()
        link.power_off()  # by a reboot: not every machine has a switch to turn it off
        assert (await end_of(machine)).cause is EndCause.POWERED_OFF
    finally:
        link.close()
    assert vmware.running() == []


async def test_layers_that_cannot_be_recorded(machine: VMwareMachine) -> None:
    async def refuse(_: tuple[str, ...]) -> None:
        raise HypervisorError("it cannot be recorded")

    async with answering(machine) as link:
        layers = machine.disk_layers
        base = (machine.spec.directory / "base.raw").stat()
        await shell(link, "echo before >/root/file; sync /root/file")
        await link.quiesce(LIMIT)
        with pytest.raises(HypervisorError, match="it cannot be recorded"):
            await machine.checkpoint(1, refuse)
        await link.attach(LIMIT)
        assert (machine.state, machine.disk_layers) == (MachineState.RUNNING, layers)
        assert {path.name for path in machine.spec.directory.glob("*.vm*")} == {
            "base.vmdk",
            *(f"{name}.lck" for name in layers),
            *layers,
        }
        assert (
            await shell(link, "cat /root/file; echo alive >/root/file; sync /root/file")
            == "before\n"
        )
        checkpointing = machine.checkpointing
        assert checkpointing is not None
        await link.quiesce(LIMIT)
        stored = await checkpointing.checkpoint(2)
        assert len(machine.disk_layers) == len(layers) + 1
        assert set(layers) < set(stored.files)
        # All machines have it beneath their disks.
        assert (machine.spec.directory / "base.raw").stat().st_mtime_ns == base.st_mtime_ns


@pytest.fixture
def few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a machine's disk have three layers at most, and merge two already."""
    monkeypatch.setattr("boincvm.hypervisor.vmware.machine.MOST_LAYERS", 3)
    monkeypatch.setattr("boincvm.hypervisor.vmware.disks.MANY_LAYERS", 2)


async def test_more_checkpoints_than_layers(
    vmware: StandIn, driver: VMwareDriver, machine: VMwareMachine, few_layers: None
) -> None:
    """The machine is suspended and continues over a single layer; its link and programs remain."""
    recorded: list[tuple[str, ...]] = []

    async def record(layers: tuple[str, ...]) -> None:
        recorded.append(layers)

    stored = {}
    async with answering(machine) as link:
        end = asyncio.ensure_future(machine.ended())
        running = Running(link, "/bin/sh", "-c", "echo begun; read line; echo $line")
        await running.until(len("begun\n"))
        first = machine.process_ids()
        for number in range(1, 5):
            await shell(link, f"echo {number} >/root/{number}; sync /root/{number}")
            await link.quiesce(LIMIT)
            stored[number] = await machine.checkpoint(number, record)
            state = link.state()
            assert machine.state is MachineState.RUNNING
            await link.attach(LIMIT)
        assert [len(layers) for layers in recorded] == [2, 3, 2, 3]
        assert machine.process_ids() != first
        assert len(vmware.running()) == 1
        assert {name for layers in recorded[2:] for name in layers}.isdisjoint(recorded[0])
        await running.feed(b"still here\n")
        await running.until(len("begun\nstill here\n"))
        assert await shell(link, "cat /root/?") == "1\n2\n3\n4\n"
        assert (usage := machine.usage()) is not None
        assert usage.cpu_seconds > 0
        assert not end.done()
        await machine.stop()
        assert (await end).cause is EndCause.ASKED
    for number in (3, 4):  # of before and after: what each needs is still there
        again = driver.restore(machine.spec, stored[number])
        async with answering(again, state) as link:
            await link.attach(LIMIT, let_run=again.resume)
            assert await shell(link, "ls /root") == "".join(f"{n}\n" for n in range(1, number + 1))
        await again.stop()


def files_of(machine: VMwareMachine) -> set[str]:
    """Return the names of a machine's files, without VMware's locks."""
    names = {path.name for path in machine.spec.directory.iterdir()}
    return {name for name in names if not name.endswith(".lck")}


async def test_one_layer_that_cannot_be_made_or_recorded(
    machine: VMwareMachine, few_layers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine continues over the layers that were recorded last."""

    async def refuse(_: tuple[str, ...]) -> None:
        raise HypervisorError("it cannot be recorded")

    def fill(_: object, __: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with answering(machine) as link:
        for number in (1, 2):
            await link.quiesce(LIMIT)
            await machine.checkpoint(number)
            await link.attach(LIMIT)
        layers = machine.disk_layers
        files = files_of(machine)
        await link.quiesce(LIMIT)
        with pytest.raises(HypervisorError, match="it cannot be recorded"):
            await machine.checkpoint(3, refuse)
        await link.attach(LIMIT)
        assert (machine.state, machine.disk_layers) == (MachineState.RUNNING, layers)
        assert files_of(machine) == files
        assert await shell(link, "echo kept >/root/file; sync; cat /root/file") == "kept\n"
        await link.quiesce(LIMIT)
        with monkeypatch.context() as full:
            full.setattr(vmdk, "merge_layers", fill)
            with pytest.raises(HostDiskFullError):
                await machine.checkpoint(3)
        await link.attach(LIMIT)
        assert (machine.state, machine.disk_layers) == (MachineState.RUNNING, layers)
        assert files_of(machine) == files
        assert await shell(link, "cat /root/file") == "kept\n"
        await link.quiesce(LIMIT)
        await machine.checkpoint(3)
        await link.attach(LIMIT)
        assert len(machine.disk_layers) == 2
        assert await shell(link, "cat /root/file") == "kept\n"


async def test_a_kill_while_layers_are_merged(
    vmware: StandIn, machine: VMwareMachine, few_layers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing starts again then."""
    merges, may_go_on = threading.Event(), threading.Event()
    merge = vmdk.merge_layers

    def merge_when_told(paths: Sequence[Path], target: Path) -> None:
        merges.set()
        assert may_go_on.wait(LIMIT)
        merge(paths, target)

    monkeypatch.setattr(vmdk, "merge_layers", merge_when_told)
    monkeypatch.setattr("boincvm.hypervisor.vmware.machine.MOST_LAYERS", 2)
    async with answering(machine) as link:
        end = asyncio.ensure_future(machine.ended())
        await link.quiesce(LIMIT)
        await machine.checkpoint(1)
        await link.attach(LIMIT)
        await link.quiesce(LIMIT)
        checkpoint = asyncio.ensure_future(machine.checkpoint(2))
        assert await asyncio.to_thread(merges.wait, LIMIT)
        kill = asyncio.ensure_future(machine.stop())
        try:
            # It has nothing left to wait for but the merge.
            done, _ = await asyncio.wait((kill,), timeout=0.2)
        finally:
            may_go_on.set()
        assert not done
        with pytest.raises(HypervisorError, match="was ended while it was being saved"):
            await checkpoint
        await kill
        assert (await end).cause is EndCause.ASKED
    assert machine.state is MachineState.STOPPED
    assert vmware.running() == []
    assert machine.process_ids() == ()


async def test_a_machine_that_does_not_continue(
    vmware: StandIn, machine: VMwareMachine, few_layers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has ended, and the end says why."""
    async with answering(machine) as link:
        for number in (1, 2):
            await link.quiesce(LIMIT)
            await machine.checkpoint(number)
            await link.attach(LIMIT)

        async def fail(_: object, __: float) -> list[object]:
            raise HypervisorError("VMware did not connect the machine's serial lines")

        monkeypatch.setattr("boincvm.hypervisor.vmware.process.accept_all", fail)
        await link.quiesce(LIMIT)
        with pytest.raises(HypervisorError, match="serial lines"):
            await machine.checkpoint(3)
        end = await end_of(machine)
        async with asyncio.timeout(LIMIT):
            await link.failure
    assert end.cause is EndCause.FAILED
    assert "did not continue it after a checkpoint: VMware did not connect" in end.detail
    assert vmware.running() == []


@pytest.fixture
def homes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where this test alone makes and finds machines.

    A user who makes a machine removes what killed processes of the same user have left.
    """
    with tempfile.TemporaryDirectory(prefix="boincvm-") as directory:
        monkeypatch.setenv("BOINCVM_HOME", directory)
        yield cache_directory() / "vmware"


async def test_what_a_killed_process_left_is_ended(
    vmware: StandIn, driver: VMwareDriver, theirs: Path, homes: Path
) -> None:
    """One machine's maker was killed before it knew the machine's process, and one crashed."""
    running, crashed = (homes / name for name in ("0badcafe", "0badbeef"))
    for directory in (running, crashed):
        directory.mkdir(mode=0o700, parents=True)
        os.close(open_lock(directory / "lock"))
    start_idle(vmware, running / f"boincvm-{running.name}.vmx")
    (crashed / f"boincvm-{crashed.name}.vmx.lck").mkdir()
    assert find_driver("vmware").remove_orphans() == 2
    assert not running.exists()
    assert not crashed.exists()
    assert vmware.running() == [str(theirs)]


async def test_what_a_killed_process_left_is_no_other_process(
    vmware: StandIn, driver: VMwareDriver, homes: Path
) -> None:
    """The process id that it recorded now belongs to another process."""
    directory = homes / "0badf00d"
    directory.mkdir(mode=0o700, parents=True)
    os.close(open_lock(directory / "lock"))
    (directory / "process").write_text(str(os.getpid()))
    (directory / f"boincvm-{directory.name}.vmx.lck").mkdir()
    assert find_driver("vmware").remove_orphans() == 1
    assert not directory.exists()


async def test_a_crash_while_it_starts(
    vmware: StandIn, machine: VMwareMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VMware has started it, but its serial lines do not connect."""

    async def fail(_: object, __: float) -> list[object]:
        raise HypervisorError("VMware did not connect the machine's serial lines")

    monkeypatch.setattr("boincvm.hypervisor.vmware.process.accept_all", fail)
    with pytest.raises(HypervisorError, match="serial lines"):
        await machine.start()
    assert vmware.running() == []


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, EndCause.KILLED), (signal.SIGSEGV, EndCause.FAILED)]
)
async def test_a_kill_while_it_is_paused(
    machine: VMwareMachine, number: signal.Signals, cause: EndCause
) -> None:
    """The signal may be sent by somebody, or caused by VMware."""
    async with answering(machine):
        await machine.pause()
        killed = kill(machine.process_ids()[0], number)
        end = await end_of(machine)
    if TELLS_EXITS:
        assert end == MachineEnd(cause, f"signal {number:d} ended VMware's program")
    else:
        assert end == MachineEnd(EndCause.KILLED, "VMware's program was killed, or it crashed")
    await asyncio.to_thread(wait_for_end, killed)


FULL = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from boincvm.errors import HostDiskFullError
from boincvm.hypervisor.contract import MachineSpec, MachineState
from boincvm.hypervisor.registry import open_driver
from support.driven import answering, shell
from support.vmware.fixture import vmware_installed

async def main(*files):
    driver = await open_driver("vmware", files[1])
    machine = driver.machine(MachineSpec(*files, memory=256 << 20, cpus=1))
    async with answering(machine) as link:
        for save in (machine.checkpoint, machine.save):
            try:
                await save(1)
            except HostDiskFullError as error:
                print(error.message)
            assert machine.state is MachineState.RUNNING
            assert not list(files[0].glob("*.vm[se]*"))
            print(await shell(link, "echo alive"), end="")
    await machine.destroy()

with vmware_installed():
    asyncio.run(main(*map(Path, sys.argv[2:])))
"""


@needs_namespaces
def test_a_full_disk(base_image: Path, tmp_path: Path) -> None:
    """The machine stays as it was, and its guest keeps running."""
    raw = tmp_path / "root.raw"
    with raw.open("x+b") as file:
        qcow2.write_raw(base_image / "root.qcow2", file.fileno(), "qcow2")
    room = raw.stat().st_blocks // 2 + (32 << 10)  # KiB: less than is written of its memory
    raw.unlink()
    names = ("kernel", "initrd", "root.qcow2")
    with tempfile.TemporaryDirectory() as location:
        files = [Path(location), *(base_image / name for name in names)]
        words = [FULL, str(Path(__file__).parents[2]), *map(str, files)]
        done = subprocess.run(
            [*small_disk(f"{room}k", Path(location)), sys.executable, "-c", *words],
            stdout=subprocess.PIPE,
            text=True,
            timeout=250,
            check=False,
        )
    reason = "There is not enough space in the file system for the selected operation"
    assert done.returncode == 0
    assert done.stdout == f"the host's disk is full: {reason}\nalive\n" * 2


async def test_player_takes_no_snapshots(base_image: Path, spec: MachineSpec) -> None:
    with vmware_installed(Product.PLAYER) as stand_in:
        package = find_driver("vmware")
        assert Ability.CHECKPOINT in package.abilities.of_machines
        verdict = package.assess(lambda: None)
        assert verdict.is_usable
        assert not verdict.is_proved
        assert verdict.abilities.of_machines == frozenset()
        driver = await open_driver("vmware", base_image / "kernel")
        assert driver.saved_machines is None
        machine = driver.machine(spec)
        assert machine.checkpointing is None
        async with answering(machine) as link:
            assert await shell(link, "echo alive") == "alive\n"
            (definition,) = stand_in.running()
            text = stand_in("snapshot", definition, "one")
            assert (text.returncode, text.stdout) == (
                255,
                "Error: The operation is not supported\n",
            )
        await machine.destroy()
