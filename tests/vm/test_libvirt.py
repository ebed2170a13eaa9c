"""`--driver libvirt`, and what happens to a machine's domain behind our back."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import libvirt
import pytest
from benchmarks import libvirt_daemon
from benchmarks.libvirt_daemon import Daemon

from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.contract import EndCause, MachineEnd, MachineSpec, MachineState
from boincvm.hypervisor.libvirt.definition import NAMESPACE
from boincvm.hypervisor.libvirt.machine import LibvirtMachine
from boincvm.hypervisor.registry import open_driver
from support.driven import LIMIT, answering, shell
from support.small_disk import needs_namespaces, small_disk

BOINCVM = Path(sys.executable).with_name("boincvm")
pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module", autouse=True)
def own_libvirt() -> Iterator[None]:
    """A daemon of this module's own, which has looked at the host's QEMU already."""
    with libvirt_daemon.running() as daemon, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
        yield


@pytest.fixture
def connection() -> Iterator[libvirt.virConnect]:
    connection = libvirt.open(os.environ["BOINCVM_LIBVIRT_URI"])
    yield connection
    connection.close()


@asynccontextmanager
async def machine_in(base_image: Path, directory: Path) -> AsyncIterator[LibvirtMachine]:
    directory.mkdir(mode=0o700)
    driver = await open_driver("libvirt", base_image / "kernel")
    files = (base_image / "kernel", base_image / "initrd", base_image / "root.qcow2")
    machine = driver.machine(MachineSpec(directory, *files, memory=256 << 20, cpus=1))
    assert isinstance(machine, LibvirtMachine)
    try:
        yield machine
    finally:
        await machine.destroy()
    assert list(directory.iterdir()) == []


def ours(connection: libvirt.virConnect) -> libvirt.virDomain:
    (domain,) = connection.listAllDomains()
    return domain


@contextmanager
def handle_of(process: int) -> Iterator[int]:
    handle = os.pidfd_open(process)
    try:
        yield handle
    finally:
        os.close(handle)


def has_ended(handle: int) -> bool:
    """Also if its parent has not noticed yet."""
    return select.select([handle], [], [], 0)[0] != []


async def end_of(machine: LibvirtMachine) -> MachineEnd:
    async with asyncio.timeout(LIMIT):
        return await machine.ended()


def test_a_run(base_image: Path) -> None:
    done = subprocess.run(
        [BOINCVM, "run", "--driver", "libvirt", "--json", "--", "sh", "-c", "cat; exit 7"],
        input="x" * 10_000,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout)["stdout"] == "x" * 10_000


async def test_a_domain_that_is_destroyed(
    base_image: Path, tmp_path: Path, connection: libvirt.virConnect
) -> None:
    async with machine_in(base_image, tmp_path / "machine") as machine, answering(machine):
        ours(connection).destroy()
        end = await end_of(machine)
        assert end.cause is EndCause.KILLED
        assert "somebody else" in end.detail
    assert connection.listAllDomains() == []


async def test_a_domain_that_is_paused(
    base_image: Path, tmp_path: Path, connection: libvirt.virConnect
) -> None:
    async with machine_in(base_image, tmp_path / "machine") as machine, answering(machine) as link:
        ours(connection).suspend()
        await machine.resume()
        assert await shell(link, "echo alive") == "alive\n"
        await machine.pause()
        ours(connection).resume()
        await machine.pause()
        assert ours(connection).state()[0] == libvirt.VIR_DOMAIN_PAUSED
        assert machine.state is MachineState.PAUSED


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_daemon_that_ends(
    base_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    """The machine ends with it, and its successor finds nothing to do."""
    with libvirt_daemon.running() as daemon:
        monkeypatch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
        async with machine_in(base_image, tmp_path / "machine") as machine, answering(machine):
            with handle_of(machine.process_ids()[0]) as process:
                daemon.process.send_signal(how)
                end = await end_of(machine)
                assert end.cause is EndCause.KILLED, end
                assert has_ended(process)
            daemon.process.wait(LIMIT)


FOREIGN = f"""<domain type="qemu"><name>boincvm-00000000</name><memory>65536</memory>
<metadata><x:machine xmlns:x="{NAMESPACE}" id="other"/></metadata>
<os><type arch="x86_64">hvm</type></os></domain>"""

ABANDONED = """
import asyncio, os, signal, sys
from pathlib import Path
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import open_driver

async def main(daemon, *files):
    driver = await open_driver("libvirt", Path(files[1]))
    machine = driver.machine(MachineSpec(*map(Path, files), memory=256 << 20, cpus=1))
    await machine.start()
    print(*machine.process_ids(), flush=True)
    os.kill(daemon, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
"""


async def test_what_a_crash_has_left(
    base_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Daemon and maker are killed at once; another's domain, whatever its name, stays."""
    directory = tmp_path / "machine"
    directory.mkdir(mode=0o700)
    files = (base_image / "kernel", base_image / "initrd", base_image / "root.qcow2")
    with ExitStack() as stack:
        daemon = stack.enter_context(libvirt_daemon.running())
        monkeypatch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
        argv = [str(daemon.process.pid), str(directory), *map(str, files)]
        killed = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", ABANDONED, *argv],
            stdout=subprocess.PIPE,
            check=False,
            timeout=120,
        )
        assert killed.returncode == -signal.SIGKILL
        daemon.process.wait(LIMIT)
        process = stack.enter_context(handle_of(int(killed.stdout)))
        assert not has_ended(process)
        next_one: Daemon = await asyncio.to_thread(libvirt_daemon.start, daemon.directory)
        try:
            connection = libvirt.open(daemon.uri)
            connection.createXML(FOREIGN)
            assert len(connection.listAllDomains()) == 2
            await open_driver("libvirt", base_image / "kernel")
            assert ours(connection).name() == "boincvm-00000000"
            assert has_ended(process)
            ours(connection).destroy()
            connection.close()
        finally:
            libvirt_daemon.stop(next_one)


IN_A_SMALL_PLACE = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
from benchmarks import libvirt_daemon
with libvirt_daemon.running() as daemon:
    os.environ["BOINCVM_LIBVIRT_URI"] = daemon.uri
    sys.exit(subprocess.run(sys.argv[2:]).returncode)
"""


@needs_namespaces
def test_a_full_disk(base_image: Path) -> None:
    with TemporaryDirectory(prefix="lv") as place:
        argv = ["run", "--driver", "libvirt", "--"]
        fill = ["dd", "if=/dev/zero", "of=big", "bs=1M", "count=100", "conv=fsync"]
        root = str(Path(__file__).parents[2])
        done = subprocess.run(
            [
                *small_disk("16m", Path(place)),
                *(sys.executable, "-c", IN_A_SMALL_PLACE, root, BOINCVM, *argv, *fill),
            ],
            env={**os.environ, "XDG_CACHE_HOME": place},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == ExitCode.HOST_DISK_FULL, done
    assert "the host's disk is full, so the machine was stopped" in done.stderr
