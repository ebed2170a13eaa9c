"""Faults of the real VirtualBox (support/virtualbox/root.py), and what others do to it."""

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from boincvm.errors import (
    HypervisorError,
    HypervisorKilledError,
)
from boincvm.guestlink.link import GuestLink
from boincvm.host.process_tree import command_line
from boincvm.host.processes import DeathGuard
from boincvm.hypervisor.contract import EndCause, MachineSpec
from boincvm.hypervisor.virtualbox.machine import VirtualBoxMachine
from support import TESTS
from support.bench import kill, wait_for_end
from support.driven import LIMIT, answering, shell
from support.small_disk import needs_namespaces, small_disk
from support.virtualbox.golden import WITH_A_BOOT, GoldenMachine
from support.virtualbox.machines import MakeMachine, check_gone, services

pytestmark = pytest.mark.timeout(WITH_A_BOOT)


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


def send_to_service(machine: VirtualBoxMachine, number: signal.Signals) -> None:
    """Send the signal; wait for the end if it is SIGKILL, after which nobody asks that service."""
    assert machine.home is not None
    for process in services(machine.home.directory):
        with suppress(ProcessLookupError):  # one that nobody uses ends by itself
            if any(word.endswith(b"VBoxSVC") for word in command_line(process)[:1]):
                end = kill(process, number)
                if number == signal.SIGKILL:
                    wait_for_end(end)
                else:
                    os.close(end)


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
            env={**os.environ, "PYTHONPATH": str(TESTS)},
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
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, *map(str, words)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
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
