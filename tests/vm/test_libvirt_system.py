"""`qemu:///system`: the system daemon, in a mount namespace with separate files."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import libvirt
import pytest
from benchmarks import libvirt_daemon
from benchmarks.libvirt_daemon import Daemon

from boincvm.hypervisor.registry import find_driver
from boincvm.hypervisor.verdict import Speed
from support.driven import LIMIT
from support.killed_on_failure import killed_on_failure

BOINCVM = Path(sys.executable).with_name("boincvm")
USER, GROUP = pwd.getpwnam("nobody")[2:4]
"""An ordinary user, who has no files on this host."""
# The maker, not its machine, may read Python's files wherever they are, as beneath /root.
BECOME = [
    *("setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]
pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a system's libvirt daemon"),
]


@pytest.fixture(scope="module")
def daemon(base_image: Path) -> Iterator[Daemon]:
    verdict = find_driver("qemu").assess(lambda: base_image / "kernel")
    start = partial(libvirt_daemon.start_system, hides_kvm=verdict.speed is not Speed.NATIVE)
    with libvirt_daemon.running(start) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def nothing_left(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
    yield
    with closing(libvirt.open(daemon.uri)) as connection:
        end = time.monotonic() + LIMIT  # a killed maker's domain ends after its maker
        while connection.listAllDomains() and time.monotonic() < end:
            time.sleep(0.1)
        assert connection.listAllDomains() == []


def test_a_run_of_root(base_image: Path) -> None:
    done = subprocess.run(
        [BOINCVM, "run", "--driver", "libvirt", "--json", "--", "sh", "-c", "cat; exit 7"],
        input="x" * 10_000,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout)["stdout"] == "x" * 10_000


def test_a_killed_run(base_image: Path, daemon: Daemon) -> None:
    """Its machine ends with it: `nothing_left` checks that."""
    words = ["run", "--driver", "libvirt", "--", "sh", "-c", "echo up; sleep 999"]
    with killed_on_failure(subprocess.Popen([BOINCVM, *words], stdout=subprocess.PIPE)) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        with closing(libvirt.open(daemon.uri)) as connection:
            assert len(connection.listAllDomains()) == 1
        running.kill()


AS_ANOTHER_USER = """
import asyncio, os, sys
from pathlib import Path
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import open_driver
from support.driven import LIMIT, answering, shell

async def main(*files):
    driver = await open_driver("libvirt", files[1])
    spec = MachineSpec(*files, memory=256 << 20, cpus=1)
    machine = driver.machine(spec)
    async with answering(machine) as link:
        await machine.pause()
        await machine.resume()
        assert await shell(link, "echo alive") == "alive\\n"
        (process,) = machine.process_ids()
        print(*(line for line in Path(f"/proc/{process}/status").read_text().splitlines()
                if line.startswith(("Uid", "Gid"))), sep="\\n")
        owners = {path.stat().st_uid for path in files[0].rglob("*")}
        print("owners", *owners, len(list(files[0].iterdir())), flush=True)
        assert await shell(link, "echo kept >/root/file; cat /root/file") == "kept\\n"
        await link.quiesce(LIMIT)
        state = link.state()
        last = await machine.save(1)
    restored = driver.restore(spec, last)
    async with answering(restored, state) as link:
        await link.attach(LIMIT, let_run=restored.resume)
        print(await shell(link, "cat /root/file"), end="", flush=True)
    await restored.destroy()

asyncio.run(main(*map(Path, sys.argv[1:])))
"""


def test_a_machine_of_another_user(base_image: Path, daemon: Daemon) -> None:
    """Its process and its files belong to that user; it can be saved, and nothing is left."""
    home = daemon.directory / "home"
    home.mkdir(mode=0o700)
    image = daemon.directory / "image"
    image.mkdir(exist_ok=True)
    files = [image / name for name in ("kernel", "initrd", "root.qcow2")]
    for file in files:
        if not file.exists():
            shutil.copyfile(base_image / file.name, file)
            file.chmod(0o444)
    machine = home / "machine"
    machine.mkdir(mode=0o700)
    for path in (home, machine):
        os.chown(path, USER, GROUP)
    done = subprocess.run(
        [*BECOME, sys.executable, "-c", AS_ANOTHER_USER, str(machine), *map(str, files)],
        env={
            **os.environ,
            "BOINCVM_HOME": str(home),
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path[1:]]),
        },
        stdout=subprocess.PIPE,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done
    output = done.stdout.splitlines()
    assert [line.split() for line in output[:2]] == [
        ["Uid:", *[str(USER)] * 4],
        ["Gid:", *[str(GROUP)] * 4],
    ]
    assert output[2].split() == ["owners", str(USER), "2"]
    assert output[3:] == ["kept"]
    assert list(machine.iterdir()) == []
    assert [path.name for path in (home / "cache" / "libvirt").iterdir()] == ["lock"]
