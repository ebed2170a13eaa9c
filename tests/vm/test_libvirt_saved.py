"""Machines saved by libvirt: what the conformance suite does not test."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import libvirt
import pytest

from boincvm.errors import HypervisorError, HypervisorKilledError
from boincvm.file_digest import digest_of
from boincvm.host.process_tree import command_line
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.contract import Checkpoint, EndCause, MachineSpec, MachineState
from boincvm.hypervisor.libvirt import disks as disks_module
from boincvm.hypervisor.libvirt import machine as machine_module
from boincvm.hypervisor.libvirt import merging
from boincvm.hypervisor.libvirt.driver import LibvirtDriver
from boincvm.hypervisor.libvirt.machine import LibvirtMachine
from boincvm.hypervisor.libvirt.saved import read_saved_state
from boincvm.hypervisor.libvirt.watch import Watch
from boincvm.hypervisor.registry import open_driver
from support.driven import LIMIT, Running, answering, shell
from support.exit_statuses import TELLS_EXITS
from support.small_disk import needs_namespaces, small_disk

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("own_libvirt")]


@pytest.fixture
def spec(base_image: Path, tmp_path: Path) -> MachineSpec:
    directory = tmp_path / "a machine: its place"
    directory.mkdir(mode=0o700)
    files = (base_image / "kernel", base_image / "initrd", base_image / "root.qcow2")
    return MachineSpec(directory, *files, memory=256 << 20, cpus=1)


@pytest.fixture
async def driver(base_image: Path) -> LibvirtDriver:
    driver = await open_driver("libvirt", base_image / "kernel")
    assert isinstance(driver, LibvirtDriver)
    return driver


@asynccontextmanager
async def destroyed(machine: LibvirtMachine) -> AsyncIterator[LibvirtMachine]:
    try:
        yield machine
    finally:
        await machine.destroy()
    assert list(machine.spec.directory.iterdir()) == []


async def saved(driver: LibvirtDriver, spec: MachineSpec) -> tuple[Checkpoint, dict[str, object]]:
    """Save a machine whose guest has a file; return the checkpoint and the link's state."""
    machine = driver.machine(spec)
    async with answering(machine) as link:
        assert await shell(link, "echo kept >/root/file; cat /root/file") == "kept\n"
        await link.quiesce(LIMIT)
        state = link.state()
        return await machine.save(1), state


async def test_layers_that_cannot_be_recorded(driver: LibvirtDriver, spec: MachineSpec) -> None:
    """The machine stays as it was: on the layers that were recorded last."""

    async def fail(layers: tuple[str, ...]) -> None:
        raise RuntimeError(f"cannot record {len(layers)} layers")

    async with destroyed(driver.machine(spec)) as machine, answering(machine) as link:
        before = machine.disk_layers
        files = {path.name for path in spec.directory.iterdir()}
        with pytest.raises(RuntimeError, match="cannot record"):
            await machine.checkpoint(1, fail)
        assert machine.disk_layers == before
        assert machine.state is MachineState.RUNNING
        assert {path.name for path in spec.directory.iterdir()} == files
        assert await shell(link, "echo alive") == "alive\n"


async def test_a_disk_of_layers(driver: LibvirtDriver, spec: MachineSpec) -> None:
    """Each checkpoint adds one that names no other file; a boot from them has all data."""
    recorded = []

    async def record(layers: tuple[str, ...]) -> None:
        assert (spec.directory / layers[-1]).exists()
        recorded.append(layers)

    machine = driver.machine(spec)
    async with answering(machine) as link:
        for number in (1, 2, 3):
            await shell(link, f"echo {number} >/root/{number}; sync /root/{number}")
            await machine.checkpoint(number, record)
        await shell(link, "echo 4 >/root/4; sync /root/4")
    await machine.stop()
    assert machine.disk_layers == recorded[-1]
    assert [len(layers) for layers in recorded] == [2, 3, 4]
    for name in recorded[-1]:
        qcow2.check_disk(spec.directory / name)
    booted = driver.machine(spec._replace(layers=recorded[-1]))
    async with destroyed(booted), answering(booted) as link:
        assert await shell(link, "cat /root/[1-4]") == "1\n2\n3\n4\n"


async def test_layers_become_one_while_the_guest_runs(
    driver: LibvirtDriver, spec: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checkpoint's file changes; a boot and a resume find all that was there."""
    for module in (machine_module, disks_module):
        monkeypatch.setattr(module, "MANY_LAYERS", 3)
    recorded: list[tuple[str, ...]] = []
    checkpoints = []

    async def record(layers: tuple[str, ...]) -> None:
        recorded.append(layers)

    machine = driver.machine(spec)
    async with answering(machine) as link:
        busy = Running(
            link, "/bin/sh", "-c", "while echo . >>/root/busy; do sleep 0.1; echo .; done"
        )
        for number in (1, 2, 3, 4):
            await shell(link, f"head -c 300000 /dev/urandom >/root/{number}; sync /root/{number}")
            await link.quiesce(LIMIT)
            checkpoints.append(await machine.checkpoint(number, record))
            await link.attach(LIMIT)
        assert [len(layers) for layers in recorded] == [2, 3, 4, 2, 3]
        assert machine.disk_layers == recorded[-1]
        assert 0 < checkpoints[2].pause < LIMIT
        assert b"." in busy.output["stdout"]
        sums = "echo 3 >/proc/sys/vm/drop_caches; cd /root; sha256sum [1-4]"
        content = await shell(link, sums)
        await link.quiesce(LIMIT)
        state = link.state()
        last = await machine.save(5)
    assert len(read_saved_state(last).layers) == 3
    for checkpoint in checkpoints:
        for name, seal in checkpoint.files.items():
            assert digest_of(spec.directory / name) == (seal.size, seal.digest), name
    booted = driver.machine(spec._replace(layers=recorded[-1]))
    async with answering(booted) as link:
        assert await shell(link, sums) == content
    await booted.stop()
    restored = driver.restore(spec, last)  # which merges them, too
    async with destroyed(restored), answering(restored, state) as link:
        assert len(restored.disk_layers) == 2
        await link.attach(LIMIT, let_run=restored.resume)
        assert await shell(link, sums) == content


async def test_layers_that_cannot_be_merged(
    driver: LibvirtDriver, spec: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is as it was: if that cannot be recorded, and if libvirt refuses."""
    for module in (machine_module, disks_module):
        monkeypatch.setattr(module, "MANY_LAYERS", 1)

    async def fail(layers: tuple[str, ...]) -> None:
        if layers[0] != disks_module.FIRST_LAYER:
            raise RuntimeError("cannot record")

    async with destroyed(driver.machine(spec)) as machine, answering(machine) as link:
        with pytest.raises(RuntimeError, match="cannot record"):
            await machine.checkpoint(1, fail)
        assert machine.disk_layers == ("disk-000000.qcow2", "disk-000001.qcow2")
        assert {path.name for path in spec.directory.glob("disk*")} == set(machine.disk_layers)
        assert await shell(link, "echo kept >/root/file; sync; cat /root/file") == "kept\n"
        monkeypatch.setattr(merging, "_COPY", 1 << 30)  # a flag that there is not
        checkpoint = await machine.checkpoint(2)
        assert len(read_saved_state(checkpoint).layers) == 2
        monkeypatch.setattr(disks_module, "MOST_LAYERS", 3)
        with pytest.raises(
            HypervisorError, match="3 layers already, and they cannot be merged: li"
        ):
            await machine.checkpoint(3)
        assert await shell(link, "cat /root/file") == "kept\n"


async def test_a_domain_of_the_same_name(
    driver: LibvirtDriver, spec: MachineSpec, connection: libvirt.virConnect
) -> None:
    """The foreign domain stays, and the saved machine can resume once it has gone."""
    last, state = await saved(driver, spec)
    text = f"""<domain type="qemu"><name>boincvm-{last.machine["id"]}</name>
        <memory>65536</memory><os><type arch="x86_64">hvm</type></os></domain>"""
    foreign = connection.createXML(text)
    with pytest.raises(HypervisorError, match="already"):
        await driver.restore(spec, last).start()
    assert foreign.isActive()
    foreign.destroy()
    restored = driver.restore(spec, last)
    async with destroyed(restored), answering(restored, state) as link:
        await link.attach(LIMIT, let_run=restored.resume)
        assert await shell(link, "cat /root/file") == "kept\n"
        with pytest.raises(HypervisorError, match="runs already"):
            await driver.restore(spec, last).start()
        assert await shell(link, "echo alive") == "alive\n"


async def test_a_kill_while_it_resumes(driver: LibvirtDriver, spec: MachineSpec) -> None:
    """The saved machine is not at fault: it can resume later."""
    last, state = await saved(driver, spec)
    name = f"guest=boincvm-{last.machine['id']},".encode()
    for _ in range(TRIES):
        machine = driver.restore(spec, last)
        ended = Event()
        killing = asyncio.ensure_future(asyncio.to_thread(kill_when_it_is_there, name, ended))
        try:
            await machine.start()
        except HypervisorKilledError:
            break
        finally:
            ended.set()
            await killing
        assert (await machine.ended()).cause is EndCause.KILLED  # it was too late
        await machine.stop()
    else:
        pytest.fail(f"it was killed too late {TRIES} times")
    restored = driver.restore(spec, last)
    async with destroyed(restored), answering(restored, state) as link:
        await link.attach(LIMIT, let_run=restored.resume)
        assert await shell(link, "cat /root/file") == "kept\n"


async def test_a_crash_while_it_resumes(
    driver: LibvirtDriver, spec: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint with which QEMU crashes counts as one, where the host tells of it."""

    class Crashing(Watch):
        def follow(self, process: int | None) -> None:
            if not self.process:  # the first of its lines
                super().follow(process)
                assert self.process  # 0 would be all of us
                os.kill(self.process, signal.SIGSEGV)

    last, _ = await saved(driver, spec)
    machine = driver.restore(spec, last)
    monkeypatch.setattr(machine_module, "Watch", Crashing)
    with pytest.raises(HypervisorError, match="the machine did not start: ") as error:
        await machine.start()
    if TELLS_EXITS:
        assert "signal 11 ended the hypervisor's process" in error.value.message
    assert isinstance(error.value, HypervisorKilledError) is not TELLS_EXITS
    await machine.destroy()


TRIES = 5


def kill_when_it_is_there(name: bytes, ended: Event) -> None:
    """Kill the QEMU with that `name` on its command line, which is about to start."""
    while not ended.wait(0.005):
        for process in Path("/proc").glob("[0-9]*"):
            arguments = command_line(int(process.name))
            if any(name in argument for argument in arguments) and b"-incoming" in arguments:
                os.kill(int(process.name), signal.SIGKILL)
                return


RESUMED = """
import asyncio, json, os, signal, sys
from pathlib import Path
from boincvm.hypervisor.contract import Checkpoint, FileSeal, MachineSpec
from boincvm.hypervisor.registry import open_driver

async def main(table, *files):
    driver = await open_driver("libvirt", Path(files[1]))
    kept = json.loads(table)
    seals = {name: FileSeal(*seal) for name, seal in kept["files"].items()}
    spec = MachineSpec(*map(Path, files), memory=256 << 20, cpus=1)
    machine = driver.restore(spec, Checkpoint(kept["number"], seals, kept["machine"]))
    await machine.start()
    await machine.resume()
    print(*machine.process_ids(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_resumed_machine_ends_with_its_maker(
    driver: LibvirtDriver, spec: MachineSpec, connection: libvirt.virConnect
) -> None:
    """However that ends, another process can resume from the same checkpoint."""
    last, state = await saved(driver, spec)
    files = [spec.directory, spec.kernel, spec.initrd, spec.root]
    maker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RESUMED, json.dumps(last._asdict()), *map(str, files)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert maker.stdin is not None
    assert maker.stdout is not None
    async with asyncio.timeout(LIMIT):
        process = os.pidfd_open(int(await maker.stdout.readline()))
        try:
            assert len(connection.listAllDomains()) == 1
            maker.stdin.close()
            assert await maker.wait() == -signal.SIGKILL
            ended = asyncio.Event()
            asyncio.get_running_loop().add_reader(process, ended.set)
            await ended.wait()
            asyncio.get_running_loop().remove_reader(process)
        finally:
            os.close(process)
    await open_driver("libvirt", spec.kernel)  # removes what was left
    restored = driver.restore(spec, last)
    async with destroyed(restored), answering(restored, state) as link:
        await link.attach(LIMIT, let_run=restored.resume)
        assert await shell(link, "cat /root/file") == "kept\n"


FULL = """
import asyncio, os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from benchmarks import libvirt_daemon
from boincvm.errors import HostDiskFullError
from boincvm.hypervisor.contract import MachineSpec, MachineState
from boincvm.hypervisor.registry import open_driver
from support.driven import answering, shell

async def main(*files):
    driver = await open_driver("libvirt", files[1])
    machine = driver.machine(MachineSpec(*files, memory=256 << 20, cpus=1))
    async with answering(machine) as link:
        for save in (machine.checkpoint, machine.save):
            try:
                await save(1)
            except HostDiskFullError as error:
                print(error.message)
            assert machine.state is MachineState.RUNNING
            assert not list(files[0].glob("memory-*"))
            print(await shell(link, "echo alive"), end="")
    await machine.destroy()

with libvirt_daemon.running() as daemon:
    os.environ["BOINCVM_LIBVIRT_URI"] = daemon.uri
    asyncio.run(main(*map(Path, sys.argv[2:])))
"""


@needs_namespaces
def test_a_full_disk(base_image: Path) -> None:
    """The machine stays as it was, and its guest keeps running."""
    names = ("kernel", "initrd", "root.qcow2")
    with TemporaryDirectory(prefix="lv") as location:
        files = [Path(location), *(base_image / name for name in names)]
        root = str(Path(__file__).parents[2])
        done = subprocess.run(
            [
                *small_disk("48m", Path(location)),
                sys.executable,
                "-c",
                FULL,
                root,
                *map(str, files),
            ],
            stdout=subprocess.PIPE,
            text=True,
            timeout=250,
            check=False,
        )
    output = "the host's disk is full, so the machine cannot be saved\nalive\n"
    assert done.returncode == 0
    assert done.stdout == output * 2
