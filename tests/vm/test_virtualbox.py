"""The VirtualBox driver, with the real VirtualBox (support/virtualbox/root.py)."""

import asyncio
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from boincvm.errors import (
    HypervisorError,
    HypervisorKilledError,
    HypervisorMissingError,
    UsageError,
)
from boincvm.guestlink.link import GuestLink
from boincvm.host import locks
from boincvm.host.process_tree import command_line
from boincvm.host.processes import DeathGuard
from boincvm.hypervisor.boot_disc import write_boot_disc
from boincvm.hypervisor.contract import EndCause, MachineSpec, MachineState
from boincvm.hypervisor.registry import find_driver
from boincvm.hypervisor.virtualbox import remote_desktop
from boincvm.hypervisor.virtualbox.driver import VirtualBoxDriver, open_driver
from boincvm.hypervisor.virtualbox.installation import DEVICE, MODULE_HINT
from boincvm.hypervisor.virtualbox.machine import VirtualBoxMachine
from boincvm.hypervisor.virtualbox.saved import GOLDEN_TABLE
from boincvm.hypervisor.virtualbox.saving import check_top
from boincvm.hypervisor.virtualbox.vboxmanage import parse_table
from boincvm.paths import cache_directory
from support.booted import spec_in
from support.driven import LIMIT, answering, shell
from support.small_disk import needs_namespaces, small_disk
from support.virtualbox.fixture import use_virtualbox
from support.virtualbox.golden import WITH_A_BOOT, GoldenMachine, golden_machine
from support.virtualbox.pack import with_extension_pack

pytestmark = pytest.mark.timeout(WITH_A_BOOT)
MakeMachine = Callable[..., VirtualBoxMachine]


@pytest.fixture
async def driver(monkeypatch: pytest.MonkeyPatch) -> VirtualBoxDriver:
    use_virtualbox(monkeypatch)
    return await open_driver()


@pytest.fixture
def spec(base_image: Path, tmp_path: Path) -> MachineSpec:
    return spec_in(tmp_path / "a machine & its <place>", base_image)


@pytest.fixture
async def machine(driver: VirtualBoxDriver, spec: MachineSpec) -> AsyncIterator[MakeMachine]:
    """Make machines that are destroyed after the test, and leave nothing."""
    async with AsyncExitStack() as stack:
        made = []

        def make(**changes: object) -> VirtualBoxMachine:
            one = driver.machine(spec._replace(**changes))
            stack.push_async_callback(one.destroy)
            made.append(one)
            return one

        yield make
    assert not spec.directory.exists() or list(spec.directory.iterdir()) == []
    for one in made:
        assert one.home is None


def services(home: Path) -> list[int]:
    """Return the processes that have `home` in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if os.fsencode(home) in (process / "environ").read_bytes():
                found.append(int(process.name))
        except (OSError, ValueError):
            continue
    return [one for one in found if command_line(one)]


def test_the_boot_disc_starts_the_kernel(base_image: Path, tmp_path: Path) -> None:
    """With QEMU's firmware in place of VirtualBox's, kernel, initrd and arguments arrive
    complete."""
    disc = tmp_path / "disc"
    arguments = 'console=ttyS0 quiet panic=-1 no_timer_check boincvm.shell="uname; poweroff -f"'
    write_boot_disc(disc, base_image / "kernel", base_image / "initrd", arguments)
    disk = f"file={base_image / 'root.qcow2'},format=qcow2,if=virtio,readonly=on"
    done = subprocess.run(
        ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256M", "-nodefaults",
         "-display", "none", "-no-reboot", "-serial", "stdio", "-drive", disk,
         "-cdrom", disc, "-boot", "d"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )  # fmt: skip
    assert "Linux" in done.stdout


def check_gone(home: Path) -> None:
    """Check that nothing is left of a VirtualBox. Another test may be removing it: then it holds
    it."""
    with suppress(FileNotFoundError), (home / "lock").open("rb") as held:
        locks.lock(held.fileno())
    with locks.exclusive(cache_directory() / "virtualbox/lock"):
        assert not home.exists()
    assert services(home) == []


async def reported(one: VirtualBoxMachine) -> dict[str, str]:
    assert one.home is not None
    output = await one.home.manage.run("showvminfo", one.home.name, "--machinereadable")
    return parse_table(output)


async def test_a_machine_is_what_was_asked_for(machine: MakeMachine) -> None:
    one = machine()
    await one.create()
    table = await reported(one)
    assert table["memory"] == "256"
    assert table["VMState"] == "poweroff"
    assert table["nic1"] == "none"
    assert table["vrde"] == "off"
    assert [table[f"uartmode{line}"].split(",")[0] for line in (1, 2, 3)] == ["client"] * 3
    assert table["boot-0-0"].endswith("boot.iso")
    assert table["disks-0-0"].endswith("disk-000000.vdi")
    assert table["disks-1-0"].endswith("transfer-disk.vmdk")


async def test_the_topmost_layer_is_found_without_our_kernel(machine: MakeMachine) -> None:
    """Firmware boots its disk, which is therefore at another controller."""
    one = machine(kernel=None, initrd=None)
    await one.create()
    assert one.home is not None
    assert one._disks is not None
    assert (await reported(one))["boot-0-0"].endswith("disk-000000.vdi")
    await check_top(one.home, one._disks)
    await one.home.manage.run("snapshot", one.home.name, "take", "theirs")
    with pytest.raises(HypervisorError, match="can no longer be saved"):
        await check_top(one.home, one._disks)


async def test_the_layer_is_over_the_image(machine: MakeMachine, base_image: Path) -> None:
    """We write it, and VirtualBox reads it; the image's own file is shared, and unchanged."""
    one = machine(disk_size=20 << 30)
    await one.create()
    before = (base_image / "root.qcow2").stat()
    assert one.home is not None
    output = await one.home.manage.run("list", "--long", "hdds")
    layer = output[output.index("disk-000000.vdi") - 600 :]
    assert "20480 MBytes" in layer
    assert "differencing" in layer
    assert "root.qcow2" in output
    assert (base_image / "root.qcow2").stat() == before


async def test_a_disk_that_is_larger_than_the_image(
    machine: MakeMachine, spec: MachineSpec
) -> None:
    """VirtualBox can read all of it, also beyond the end of the image's disk."""
    one = machine(disk_size=(8 << 30) + (64 << 20))
    await one.create()
    assert one.home is not None
    source, copy = spec.directory / "disk-000000.vdi", spec.directory / "copy.vdi"
    await one.home.manage.run("clonemedium", "disk", str(source), str(copy), "--format", "VDI")
    assert copy.stat().st_size > 64 << 20


async def test_a_network_card_is_there_where_asked_for(machine: MakeMachine) -> None:
    one = machine(network=True)
    assert one.network is not None
    await one.network.connect(connected=False)
    table = await reported(one)
    assert (table["nic1"], table["cableconnected1"]) == ("nat", "off")
    await one.network.connect(connected=True)
    assert (await reported(one))["cableconnected1"] == "on"


async def test_a_remote_desktop_needs_the_extension_pack(
    machine: MakeMachine, spec: MachineSpec
) -> None:
    """The VNC module of Debian's package is none that is used: it listens on all addresses."""
    one = machine(remote_desktop=True)
    with pytest.raises(HypervisorMissingError, match="no remote desktop without Oracle's") as at:
        await one.create()
    assert "install the extension pack" in at.value.hint
    plain = machine()
    await plain.create()
    assert plain.remote_desktop is None
    assert (await reported(plain))["vrde"] == "off"


@pytest.fixture
def extension_pack(
    driver: VirtualBoxDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Have a stand-in for Oracle's extension pack."""
    real = use_virtualbox(monkeypatch).programs
    monkeypatch.setenv("PATH", with_extension_pack(tmp_path / "pack", real))


async def test_a_remote_desktop(machine: MakeMachine, extension_pack: None) -> None:
    """As defined it is on 127.0.0.1 only, for one client with a password, of which VirtualBox has
    only the hash."""
    one = machine(remote_desktop=True)
    await one.create()
    table = await reported(one)
    assert {name: table[name] for name in table if name.startswith("vrde")} == {
        "vrde": "on",
        "vrdeaddress": "127.0.0.1",
        "vrdeports": "33890-33989",
        "vrdeauthtype": "external",
        "vrdeport": "-1",
        **dict.fromkeys(("vrdemulticon", "vrdereusecon", "vrdevideochannel"), "off"),
        **{name: table[name] for name in table if name.startswith("vrdeproperty")},
    }
    assert one.home is not None
    settings = (one.home.machine_directory / one.home.name / f"{one.home.name}.vbox").read_text()
    assert 'authLibrary="VBoxAuthSimple"' in settings
    (digest,) = re.findall(r'"VBoxAuthSimple/users/boincvm" value="([0-9a-f]{64})"', settings)
    password = one._password
    assert digest == hashlib.sha256(password.encode()).hexdigest()
    assert len(password) >= 16
    assert password not in settings
    assert one.remote_desktop is not None
    assert one.remote_desktop.access is None  # until it runs


async def test_the_address_of_a_remote_desktop(
    machine: MakeMachine, extension_pack: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known as soon as the machine runs, and no longer. Oracle's server is not here; its port
    is made up."""
    monkeypatch.setattr(remote_desktop, "bound_port", lambda _: 33891)
    one = machine(remote_desktop=True)
    (await one.start()).close()
    assert one.remote_desktop is not None
    access = one.remote_desktop.access
    assert access == ("RDP", "127.0.0.1", 33891, "boincvm", one._password)
    await one.stop()
    assert one.remote_desktop.access is None


async def test_a_remote_desktop_that_does_not_open(
    machine: MakeMachine, extension_pack: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told an address that leads nowhere."""
    monkeypatch.setattr("boincvm.hypervisor.virtualbox.machine._DESKTOP_LIMIT", 2.0)
    one = machine(remote_desktop=True)
    with pytest.raises(HypervisorError, match="does not open the machine's remote desktop"):
        await one.start()
    assert one.remote_desktop is not None
    assert one.remote_desktop.access is None


async def test_a_disk_that_is_too_small(machine: MakeMachine) -> None:
    with pytest.raises(UsageError, match="less than the image's"):
        await machine(disk_size=1 << 30).create()


async def test_nothing_is_left_of_it(machine: MakeMachine) -> None:
    one = machine()
    await one.create()
    assert one.home is not None
    home = one.home.directory
    sockets = Path("/tmp", f".vbox-{one.home.name}-ipc")
    for _ in range(5):  # alone the service ends in five seconds: for a busy host that is not long
        await one.home.manage.run("list", "vms")
        if sockets.exists() and services(home) != []:
            break
    else:
        pytest.fail("it has no service")
    await one.destroy()
    assert not home.exists()
    assert not sockets.exists()
    assert services(home) == []


async def test_machines_know_nothing_of_each_other(machine: MakeMachine) -> None:
    one, two = machine(), machine(ephemeral=True)
    await one.create()
    await two.create()
    assert one.home is not None
    assert two.home is not None
    names = (await one.home.manage.run("list", "vms"), await two.home.manage.run("list", "vms"))
    assert one.home.name in names[0]
    assert one.home.name not in names[1]


async def test_several_are_made_at_once(machine: MakeMachine) -> None:
    """None takes another one for an orphan."""
    several = [machine(ephemeral=True) for _ in range(3)]
    await asyncio.gather(*(one.create() for one in several))
    for one in several:
        assert (await reported(one))["VMState"] == "poweroff"


async def test_without_the_kernel_module(
    monkeypatch: pytest.MonkeyPatch, machine: MakeMachine
) -> None:
    """With the package's own VBoxHeadless, the error shows the command to type."""
    use_virtualbox(monkeypatch, stock=True)
    one = machine()
    with pytest.raises(HypervisorError) as caught:
        await one.start()
    assert "Kernel driver not installed" in caught.value.message
    assert caught.value.hint == MODULE_HINT
    assert one.process_ids() == ()


def test_what_doctor_says(monkeypatch: pytest.MonkeyPatch) -> None:
    use_virtualbox(monkeypatch)
    package = find_driver("virtualbox")
    verdict = package.assess(lambda: None)
    assert verdict.version.startswith("7.")
    ((name, check),) = package.checks
    (result,) = check(lambda: None)
    assert name == result.name == "virtualbox"
    if not Path(DEVICE).exists():
        assert f"{DEVICE} is not" in result.detail
        assert result.remedy == verdict.remedy == MODULE_HINT


async def test_a_disk_that_has_gone(machine: MakeMachine, spec: MachineSpec) -> None:
    one = machine()
    await one.create()
    (spec.directory / "disk-000000.vdi").unlink()
    with pytest.raises(HypervisorError, match="Could not open the medium"):
        await one.start()


ORPHAN = """
import asyncio, os, sys
from pathlib import Path
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.boot_disc import write_boot_disc
from boincvm.hypervisor.virtualbox.driver import open_driver

async def main(directory, kernel, initrd, root):
    spec = MachineSpec(*map(Path, (directory, kernel, initrd, root)), memory=64 << 20, cpus=1)
    machine = (await open_driver()).machine(spec._replace(ephemeral=True))
    await machine.create()
    print(machine.home.directory, flush=True)
    os.kill(os.getpid(), 9)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_process_left_is_removed(
    machine: MakeMachine, spec: MachineSpec, tmp_path: Path
) -> None:
    files = map(str, (tmp_path / "its", spec.kernel, spec.initrd, spec.root))
    (tmp_path / "its").mkdir()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", ORPHAN, *files],
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    home = Path(done.stdout.strip())
    assert home.parent.name == "virtualbox"
    await machine().create()
    check_gone(home)
    assert not Path("/tmp", f".vbox-boincvm-{home.name}-ipc").exists()


@pytest.fixture
async def golden(driver: VirtualBoxDriver, spec: MachineSpec) -> GoldenMachine:
    """Return a booted machine, of which a test starts copies."""
    return await golden_machine(driver, spec)


@pytest.fixture
async def copy(
    driver: VirtualBoxDriver, golden: GoldenMachine, spec: MachineSpec
) -> AsyncIterator[VirtualBoxMachine]:
    machine = golden.clone(driver, spec)
    yield machine
    await machine.destroy()
    assert not spec.directory.exists() or list(spec.directory.iterdir()) == []


def send_to_service(machine: VirtualBoxMachine, number: signal.Signals) -> None:
    assert machine.home is not None
    for process in services(machine.home.directory):
        with suppress(ProcessLookupError):  # one that nobody uses ends by itself
            if command_line(process)[0].endswith(b"VBoxSVC"):
                os.kill(process, number)


async def test_its_service_is_killed_before_it_starts(machine: MakeMachine) -> None:
    """VirtualBox starts another one, which knows the machine."""
    one = machine()
    await one.create()
    send_to_service(one, signal.SIGKILL)
    link = await GuestLink.open(await one.start())
    try:
        await one.pause()
        assert one.process_ids() != ()
    finally:
        link.close()


@pytest.mark.parametrize("is_saved", [False, True])
async def test_its_service_is_killed_while_it_runs(
    copy: VirtualBoxMachine, *, is_saved: bool
) -> None:
    """VirtualBox ends the machine then, and the error reports it, also while it is being saved."""
    async with answering(copy) as link:
        assert copy.home is not None
        home, name = copy.home.directory, copy.home.name
        if is_saved:
            send_to_service(copy, signal.SIGSTOP)  # so that it is not done too soon
            saving = asyncio.ensure_future(copy.checkpoint(1))
            await asyncio.wait((saving,), timeout=0.5)
        send_to_service(copy, signal.SIGKILL)
        if is_saved:
            with pytest.raises(HypervisorError):
                async with asyncio.timeout(LIMIT):
                    await saving
        async with asyncio.timeout(LIMIT):
            end = await copy.ended()
            await link.failure
    assert end.cause in (EndCause.FAILED, EndCause.KILLED)
    assert end.detail
    await copy.destroy()
    assert services(home) == []
    assert not home.exists()
    assert not Path("/tmp", f".vbox-{name}-ipc").exists()


async def test_somebody_powers_it_off(copy: VirtualBoxMachine) -> None:
    async with answering(copy) as link:
        assert copy.home is not None
        await copy.home.manage.run("controlvm", copy.home.name, "poweroff")
        async with asyncio.timeout(LIMIT):
            assert (await copy.ended()).cause is EndCause.POWERED_OFF
            await link.failure
        with pytest.raises(HypervisorError, match="not currently running"):
            await copy.pause()


async def test_somebody_pauses_it(copy: VirtualBoxMachine) -> None:
    """Afterwards it is in the requested state."""
    async with answering(copy) as link:
        assert copy.home is not None
        await copy.home.manage.run("controlvm", copy.home.name, "pause")
        await copy.pause()
        await copy.home.manage.run("controlvm", copy.home.name, "resume")
        await copy.resume()
        assert await shell(link, "echo alive") == "alive\n"


async def test_somebody_removes_it(copy: VirtualBoxMachine) -> None:
    """VirtualBox removes no machine that runs. One whose files are gone runs on until its end."""
    async with answering(copy) as link:
        assert copy.home is not None
        home, name = copy.home.directory, copy.home.name
        with pytest.raises(HypervisorError, match="locked"):
            await copy.home.manage.run("unregistervm", name, "--delete")
        shutil.rmtree(home)
        assert await shell(link, "echo alive") == "alive\n"
        await copy.stop()
        async with asyncio.timeout(LIMIT):
            assert (await copy.ended()).cause is EndCause.ASKED
    await copy.destroy()
    check_gone(home)
    assert not Path("/tmp", f".vbox-{name}-ipc").exists()


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, EndCause.KILLED), (signal.SIGSEGV, EndCause.FAILED)]
)
async def test_a_signal_ends_it(
    copy: VirtualBoxMachine, number: signal.Signals, cause: EndCause
) -> None:
    """The signal may be sent by somebody, or caused by VirtualBox: then its log is quoted."""
    async with answering(copy) as link:
        os.kill(copy.process_ids()[0], number)
        async with asyncio.timeout(LIMIT):
            end = await copy.ended()
            await link.failure
    assert end.cause is cause
    assert (cause is EndCause.FAILED) == ("(VBox.log: " in end.detail), end


async def test_a_kill_while_it_starts(
    machine: MakeMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It stops itself before it connects its lines, so that the kill cannot be too late."""
    stopped = tmp_path / "bin" / "VBoxHeadless"
    stopped.parent.mkdir()
    stopped.write_text(f'#!/bin/sh\nkill -STOP $$\nexec {shutil.which("VBoxHeadless")} "$@"\n')
    stopped.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stopped.parent}{os.pathsep}{os.environ['PATH']}")

    class Killer(DeathGuard):
        def __init__(self, process: int, argument: str) -> None:
            os.kill(process, signal.SIGKILL)
            super().__init__(process, argument)

    monkeypatch.setattr("boincvm.hypervisor.virtualbox.process.DeathGuard", Killer)
    with pytest.raises(HypervisorKilledError, match="was killed while it started"):
        await machine().start()


async def test_layers_that_cannot_be_recorded(copy: VirtualBoxMachine) -> None:
    """The machine stays as it was: on the layers that were recorded last."""

    async def fail(layers: tuple[str, ...]) -> None:
        raise RuntimeError(f"cannot record {len(layers)} layers")

    async with answering(copy) as link:
        before = copy.disk_layers
        files = {path.name for path in copy.spec.directory.iterdir()}
        with pytest.raises(RuntimeError, match="cannot record"):
            await copy.checkpoint(1, fail)
        assert copy.disk_layers == before
        assert copy.state is MachineState.RUNNING
        assert {path.name for path in copy.spec.directory.iterdir()} == files
        assert await shell(link, "echo kept >/root/file; sync; cat /root/file") == "kept\n"


async def test_a_state_that_another_version_has_saved(
    driver: VirtualBoxDriver, golden: GoldenMachine, spec: MachineSpec, tmp_path: Path
) -> None:
    """An older one's is tried; if it cannot be read, the error names both versions."""
    older = tmp_path / "older"
    shutil.copytree(golden.spec.directory, older)
    table = json.loads((older / GOLDEN_TABLE).read_text())
    (older / GOLDEN_TABLE).write_text(json.dumps({**table, "virtualbox": "7.0.10"}))
    os.truncate(older / table["state"], 4096)
    machine = driver.golden_snapshots.clone(spec, older)
    try:
        with pytest.raises(HypervisorError) as caught:
            await machine.start()
    finally:
        await machine.destroy()
    assert f"VirtualBox 7.0.10 saved it, and {driver.version} is here" in caught.value.message


async def test_many_checkpoints(driver: VirtualBoxDriver, copy: VirtualBoxMachine) -> None:
    """Each adds a layer; when it resumes, they are merged, and the disk is unchanged."""
    recorded = []

    async def record(layers: tuple[str, ...]) -> None:
        assert (copy.spec.directory / layers[-1]).exists()
        recorded.append(layers)

    async with answering(copy) as link:
        for number in range(1, 8):
            await shell(link, f"echo {number} >/root/{number}; sync /root/{number}")
            await copy.checkpoint(number, record)
        assert recorded[-1] == copy.disk_layers
        await link.quiesce(LIMIT)
        state = link.state()
        last = await copy.save(8)
    assert [len(layers) for layers in recorded] == list(range(3, 10))
    again = driver.restore(copy.spec, last)
    async with answering(again, state) as link:
        assert len(again.disk_layers) == 2
        await link.attach(LIMIT, let_run=again.resume)
        assert await shell(link, "cat /root/?") == "".join(f"{n}\n" for n in range(1, 8))
    await again.stop()


def all_programs_but(name: str, directory: Path) -> Path:
    """Return a directory with links to all programs on PATH but one."""
    directory.mkdir()
    for location in os.get_exec_path():
        for program in Path(location).iterdir() if Path(location).is_dir() else ():
            link = directory / program.name
            if program.name != name and not link.is_symlink():
                link.symlink_to(program)
    return directory


COPY = """
import asyncio, json, sys
from pathlib import Path
from boincvm.hypervisor.virtualbox.driver import open_driver
from support.driven import Running, answering
from support.virtualbox.golden import GoldenMachine
from boincvm.hypervisor.contract import MachineSpec

async def make_copy(golden, link, directory, kernel, initrd, root):
    files = map(Path, (kernel, initrd, root))
    spec = MachineSpec(Path(directory), *files, memory=256 << 20, cpus=1)
    snapshot = GoldenMachine(spec._replace(directory=Path(golden)), json.loads(link))
    return snapshot.clone(await open_driver(), spec)
"""
KILLED = f"""{COPY}
async def main(*words):
    *words, pause = words
    machine = await make_copy(*words)
    async with answering(machine) as link:
        busy = Running(link, "/bin/sh", "-c", "echo begun; while :; do :; done")
        await busy.until(1)
        if pause:
            await machine.pause()
        print(machine.process_ids()[0], machine.home.directory, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


FULL = f"""{COPY}
async def main(*words):
    directory = Path(words[2])
    directory.mkdir(mode=0o700)
    machine = await make_copy(*words)
    try:
        async with answering(machine) as link:
            Running(link, "/bin/sh", "-c", "yes 0123456789abcdef | head -c 6000000 >/big; sync")
            end = await machine.ended()
    finally:
        await machine.destroy()
    assert list(directory.iterdir()) == []
    print(end.cause.name)

asyncio.run(main(*sys.argv[1:]))
"""


@needs_namespaces
async def test_the_hosts_disk_gets_full(golden: GoldenMachine, spec: MachineSpec) -> None:
    with TemporaryDirectory(prefix="full") as location:
        words = (golden.spec.directory, json.dumps(golden.link), Path(location) / "its")
        files = (spec.kernel, spec.initrd, spec.root)
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *small_disk("10m", Path(location)),
                *(sys.executable, "-c", FULL, *map(str, (*words, *files))),
            ],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            capture_output=True,
            text=True,
            timeout=2 * LIMIT,
            check=False,
        )
    assert done.stdout == "HOST_DISK_FULL\n", done


@pytest.mark.parametrize("pause", ["", "paused"])
async def test_it_ends_with_its_maker(
    machine: MakeMachine,
    golden: GoldenMachine,
    spec: MachineSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pause: str,
) -> None:
    """The next one that is made removes what is left of it.

    This includes the case without the kernel's help, as with a set-user-ID VBoxHeadless: without
    setpriv.
    """
    monkeypatch.setenv("PATH", str(all_programs_but("setpriv", tmp_path / "bin")))
    (tmp_path / "its").mkdir()
    places = (golden.spec.directory, json.dumps(golden.link), tmp_path / "its")
    words = (*places, spec.kernel, spec.initrd, spec.root, pause)
    tests = Path(__file__).resolve().parents[1]
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, *map(str, words)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    try:
        assert parent.stdout is not None
        async with asyncio.timeout(LIMIT):
            process, home = (await parent.stdout.readline()).decode().split()
        handle = os.pidfd_open(int(process))
    finally:
        parent.kill()
        await parent.wait()
    try:
        assert await asyncio.to_thread(select.select, [handle], [], [], LIMIT) != ([], [], [])
    finally:
        os.close(handle)
    await machine().create()
    check_gone(Path(home))
