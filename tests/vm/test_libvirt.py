"""`--driver libvirt`, and changes to a machine's domain from outside."""

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import libvirt
import pytest
from benchmarks import libvirt_daemon
from benchmarks.libvirt_daemon import Daemon

from boincvm.errors import HypervisorError
from boincvm.exit_codes import ExitCode
from boincvm.guestlink.link import GuestLink
from boincvm.hypervisor.contract import EndCause, MachineEnd, MachineSpec, MachineState
from boincvm.hypervisor.libvirt.definition import NAMESPACE
from boincvm.hypervisor.libvirt.machine import LibvirtMachine
from boincvm.hypervisor.registry import open_driver
from support.cleaned import cleaned
from support.driven import LIMIT, answering, shell
from support.exit_statuses import TELLS_EXITS
from support.golden_home import GoldenHome
from support.published_port import check_published_port
from support.small_disk import needs_namespaces, small_disk

BOINCVM = Path(sys.executable).with_name("boincvm")
pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("own_libvirt")]


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
    """Tell whether it has ended, even if its parent has not noticed yet."""
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


def test_a_published_port_leads_into_the_guest(base_image: Path) -> None:
    check_published_port("--driver", "libvirt")


def test_a_run_that_starts_from_a_golden_snapshot(base_image: Path, tmp_path: Path) -> None:
    """Copies that run at the same time have each a name, an identity and a disk of their own."""
    home = GoldenHome(tmp_path / "data")
    home.warm("--driver", "libvirt")
    script = "head -c 16 /dev/urandom | od -An -tx1; cat /root/file; echo mine >/root/file; sync"
    with ThreadPoolExecutor() as pool:
        runs = [
            pool.submit(home.run, "sh", "-c", f"{script} 2>&1", options=("--driver", "libvirt"))
            for _ in range(2)
        ]
        results = [run.result() for run in runs]
    assert [result["start"] for result in results] == ["golden", "golden"]
    outputs = [str(result["stdout"]) for result in results]
    assert outputs[0] != outputs[1]
    assert not any("mine" in text for text in outputs)


async def test_a_domain_that_is_destroyed(
    base_image: Path, tmp_path: Path, connection: libvirt.virConnect
) -> None:
    async with machine_in(base_image, tmp_path / "machine") as machine, answering(machine):
        ours(connection).destroy()
        end = await end_of(machine)
        assert end.cause is EndCause.KILLED
        assert "somebody else" in end.detail
    assert connection.listAllDomains() == []


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, EndCause.KILLED), (signal.SIGSEGV, EndCause.FAILED)]
)
async def test_a_signal_ends_it(
    base_image: Path, tmp_path: Path, number: signal.Signals, cause: EndCause
) -> None:
    """The signal may be sent by somebody, or caused by QEMU, which libvirt does not tell."""
    async with machine_in(base_image, tmp_path / "machine") as machine, answering(machine):
        os.kill(machine.process_ids()[0], number)
        end = await end_of(machine)
    if TELLS_EXITS:
        assert end == MachineEnd(cause, f"signal {number:d} ended the hypervisor's process")
    else:
        assert end.cause is EndCause.KILLED


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
    """The machine ends with it, and the next daemon finds nothing to do."""
    with libvirt_daemon.running() as daemon:
        monkeypatch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
        async with machine_in(base_image, tmp_path / "machine") as machine, answering(machine):
            with handle_of(machine.process_ids()[0]) as process:
                daemon.process.send_signal(how)
                end = await end_of(machine)
                assert end.cause is EndCause.KILLED, end
                assert has_ended(process)
            daemon.process.wait(LIMIT)


@pytest.mark.parametrize("step", ["before it starts", "while it is saved"])
async def test_a_daemon_that_is_killed_at_another_step(
    base_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The error reports it, nothing waits for ever, and nothing is left."""
    with libvirt_daemon.running() as daemon:
        monkeypatch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
        async with machine_in(base_image, tmp_path / "machine") as machine:
            await machine.create()
            if step == "before it starts":
                daemon.process.kill()
                with pytest.raises(HypervisorError):
                    async with asyncio.timeout(LIMIT):
                        await machine.start()
            else:
                link = await GuestLink.open(await machine.start())
                daemon.process.send_signal(signal.SIGSTOP)  # so that it is not done too soon
                saving = asyncio.ensure_future(machine.checkpoint(1))
                await asyncio.wait((saving,), timeout=0.5)
                daemon.process.kill()
                with pytest.raises(HypervisorError):
                    async with asyncio.timeout(LIMIT):
                        await saving
                assert (await end_of(machine)).cause is EndCause.KILLED
                link.close()
            daemon.process.wait(LIMIT)


async def test_a_directory_that_somebody_removes(base_image: Path, tmp_path: Path) -> None:
    """The machine runs on, and ends as it should."""
    async with machine_in(base_image, tmp_path / "machine") as machine:
        link = await GuestLink.open(await machine.start())
        try:
            assert machine._home is not None
            shutil.rmtree(machine._home.directory)
            await machine.stop()
            assert (await end_of(machine)).cause is EndCause.ASKED
        finally:
            link.close()


def test_a_killed_run(base_image: Path, connection: libvirt.virConnect) -> None:
    """Its machine ends, and what is left of it is removed by `doctor --clean`, or the next run."""
    with TemporaryDirectory(prefix="lv") as cache, ExitStack() as stack:
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        run = subprocess.Popen(
            [BOINCVM, "run", "--driver", "libvirt", "--", "sh", "-c", "echo begun; sleep 1000"],
            env=environment,
            stdout=subprocess.PIPE,
        )
        stack.enter_context(run)
        stack.callback(run.kill)
        assert run.stdout is not None
        assert run.stdout.readline() == b"begun\n"
        homes = Path(cache) / "boincvm/libvirt"
        assert clean(environment) == []
        assert len([path for path in homes.iterdir() if path.is_dir()]) == 1
        run.kill()
        run.wait()
        assert "removed machines of the driver libvirt: 1" in clean(environment)
        assert not any(path.is_dir() for path in homes.iterdir())
        assert connection.listAllDomains() == []


def clean(environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [BOINCVM, "doctor", "--clean"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return cleaned(done.stdout)


FOREIGN = f"""<domain type="qemu"><name>boincvm-00000000</name><memory>65536</memory>
<metadata><x:machine xmlns:x="{NAMESPACE}" id="other"/></metadata>
<os><type arch="x86_64">hvm</type></os></domain>"""

ABANDONED = """
import asyncio, os, signal, sys
from pathlib import Path
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import open_driver
from boincvm.paths import cache_directory

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
    """Daemon and maker are killed at once; a foreign domain, whatever its name, stays."""
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
    small = {"BOINCVM_LIBVIRT_URI": daemon.uri, "XDG_CACHE_HOME": sys.argv[2]}
    sys.exit(subprocess.run(sys.argv[3:], env={**os.environ, **small}).returncode)
"""


@needs_namespaces
def test_a_full_disk(base_image: Path) -> None:
    with TemporaryDirectory(prefix="lv") as location:
        argv = ["run", "--driver", "libvirt", "--"]
        fill = ["dd", "if=/dev/zero", "of=big", "bs=1M", "count=100", "conv=fsync"]
        root = str(Path(__file__).parents[2])
        done = subprocess.run(
            [
                *small_disk("16m", Path(location)),
                *(sys.executable, "-c", IN_A_SMALL_PLACE, root, location, BOINCVM, *argv, *fill),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == ExitCode.HOST_DISK_FULL, done
    assert "the host's disk is full, so the machine was stopped" in done.stderr
