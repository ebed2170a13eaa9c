"""`boincvm run --driver uml`: the same images, options and results, at the host's own speed."""

import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from boincvm.exit_codes import ExitCode
from boincvm.host.process_tree import command_line, descendants
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import open_driver
from boincvm.image.store import ImageStore
from support.bench import Bench, finish, open_those_that_run, read_line, wait_for_end
from support.command_line import BOINCVM, boincvm
from support.driven import answering, shell
from support.small_disk import needs_namespaces, small_disk

NUMBER = "(2^293-1)/1"
CURVE = ["-sigma", "0:1234", "1000000"]
LIBRARIES = "usr/lib/x86_64-linux-gnu"
NEEDED = [
    "usr/bin/ecm",
    "lib64/ld-linux-x86-64.so.2",
    *(f"{LIBRARIES}/{name}" for name in ("libecm.so.1", "libgmp.so.10", "libm.so.6", "libc.so.6")),
]
pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("uml_kernel")]


def run(*arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    return boincvm("run", "--driver", "uml", *arguments, directory=directory)


@pytest.fixture(scope="module")
def science_image() -> str:
    build = ["image", "build", "--if-missing", "--package", "gmp-ecm", "sci"]
    subprocess.run([BOINCVM, *build], check=True, stdout=subprocess.DEVNULL, timeout=900)
    return "sci"


FULL = """
import asyncio, sys
from pathlib import Path
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import open_driver
from support.driven import Running, answering

async def main(directory, *files):
    directory.mkdir()
    driver = await open_driver("uml", files[0])
    spec = MachineSpec(directory, *files, memory=128 << 20, cpus=1)
    machine = driver.machine(spec._replace(ephemeral=True))
    try:
        async with answering(machine) as link:
            Running(link, "/bin/sh", "-c", "head -c 60000000 /dev/urandom >/big; sync /big")
            end = await machine.ended()
    finally:
        await machine.destroy()
    assert not directory.exists()
    print(end.cause.name)

asyncio.run(main(*map(Path, sys.argv[1:])))
"""


@needs_namespaces
def test_the_hosts_disk_gets_full(base_image: Path) -> None:
    """The machine ends: its programs must not go on without what they have written."""
    with TemporaryDirectory(prefix="uml") as location:
        files = (base_image / name for name in ("kernel", "initrd", "root.qcow2"))
        words = [sys.executable, "-c", FULL, str(Path(location) / "its"), *map(str, files)]
        done = subprocess.run(
            [*small_disk("24m", Path(location)), *words],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    assert done.stdout == "HOST_DISK_FULL\n", done


def without_times(output: str) -> str:
    return re.sub(r"took \d+ms", "", output)


async def test_ecm_at_the_speed_of_the_host(science_image: str, tmp_path: Path) -> None:
    """Run the image's program in a machine and on the host. The host measures the processor time,
    because on a busy host a guest also counts time that others used; what others make it wait for
    memory is counted, too, so a slow measurement is repeated."""
    (tmp_path / "number").write_text(NUMBER)
    script = f"ecm {' '.join(CURVE)} <number; tar -chf ecm.tar -C / {' '.join(NEEDED)}"
    options = ["--image", science_image, "--input", "number", "--output", "ecm.tar", "--json"]
    done = run(*options, "--", "sh", "-c", script, directory=tmp_path)
    reported = json.loads(done.stdout)
    assert reported["exit_code"] == 0, reported
    with tarfile.open(tmp_path / "ecm.tar") as archive:
        archive.extractall(tmp_path, filter="data")

    directory = tmp_path / "machine"
    directory.mkdir(mode=0o700)
    measured = []
    with ImageStore().open(science_image) as image:
        files = (directory, image.kernel, image.initrd, image.root)
        machine = (await open_driver("uml", None)).machine(
            MachineSpec(*files, memory=256 << 20, cpus=1)
        )
        try:
            async with answering(machine) as link:
                for _ in range(3):
                    output, on_host = await ecm_on_the_host(tmp_path)
                    assert without_times(reported["stdout"]) == without_times(output)
                    assert on_host > 0.3
                    begin = machine.usage()
                    await shell(link, f"echo '{NUMBER}' | ecm {' '.join(CURVE)}")
                    end = machine.usage()
                    assert begin is not None
                    assert end is not None
                    measured.append((end.cpu_seconds - begin.cpu_seconds, on_host))
                    # Emulated it would be fifteen times as much; a crowded cache costs both.
                    if measured[-1][0] < 2 * on_host + 0.5:
                        return
        finally:
            await machine.destroy()
    raise AssertionError(f"seconds in the machine, and on the host: {measured}")


async def ecm_on_the_host(directory: Path) -> tuple[str, float]:
    """Return what the image's program prints on the host, and the processor time that it takes."""
    program, loader = (directory / name for name in NEEDED[:2])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = await asyncio.to_thread(
        subprocess.run,
        [loader, "--library-path", directory / LIBRARIES, program, *CURVE],
        input=NUMBER,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before.ru_utime


def test_files_streams_and_exit_code(base_image: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(b"0123456789" * 300_000)
    script = "cat; sha256sum tree/large >sum; cp -r tree again; echo no >&2; exit 7"
    files = ["--input", "tree", "--output", "again", "--output", "sum"]
    done = subprocess.run(
        [BOINCVM, "run", "--driver", "uml", *files, "--", "sh", "-c", script],
        cwd=tmp_path,
        input="x" * 10_000,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "x" * 10_000), done.stderr
    assert "no\n" in done.stderr
    assert (tmp_path / "again/large").read_bytes() == (tmp_path / "tree/large").read_bytes()
    assert len((tmp_path / "sum").read_text().split()[0]) == 64


def test_what_it_has_not_is_said_before_anything_runs(base_image: Path) -> None:
    done = run("--cpus", "2", "--", "true")
    assert done.returncode == ExitCode.USAGE
    assert "a machine of the driver uml has at most 1 processors" in done.stderr


def test_a_panic_is_reported_as_such(base_image: Path) -> None:
    done = run("--", "sh", "-c", "echo c >/proc/sysrq-trigger")
    assert done.returncode == ExitCode.GUEST_DIED
    assert "kernel panicked: sysrq triggered crash" in done.stderr


def test_a_run_that_is_killed_leaves_nothing(bench: Bench) -> None:
    """`bench` checks what is left."""
    process = bench.start("--driver", "uml", "--", "sh", "-c", "echo begun; while :; do :; done")
    assert read_line(process.stdout) == b"begun\n"
    handles = open_those_that_run(descendants(process.pid))
    assert len(handles) > 2  # the kernel, its helpers, the guest's programs
    process.kill()
    for handle in handles:
        wait_for_end(handle)


def test_somebody_stops_its_kernel(bench: Bench) -> None:
    """Its guest is silent then, which ends the run."""
    # The limit counts before the program is up, too, when a busy host may starve the kernel.
    words = ("--driver", "uml", "--silence-limit", "8", "--", "sh", "-c", "echo up; sleep 99")
    process = bench.start(*words)
    assert read_line(process.stdout) == b"up\n"
    # Its helpers, which have the same command line, come after it.
    kernel = next(pid for pid in descendants(process.pid) if command_line(pid)[:1] == [b"/linux"])
    end = os.pidfd_open(kernel)
    os.kill(kernel, signal.SIGSTOP)
    finish(process, limit=30).check_error(217, "has been silent for 8 s")
    wait_for_end(end)
