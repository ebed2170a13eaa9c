"""Faults of the machine, the image and our own process, each of which is distinguished."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from boincvm.image.store import ImageStore
from support.bench import Bench, digests, finish, kill, read_line, until, wait_for_end
from support.garble import SEND_GARBAGE, write_garble
from support.host_delays import within


@pytest.mark.usefixtures("cold")
def test_a_guest_that_does_not_boot_in_time(bench: Bench) -> None:
    bench.run("--boot-limit", "0.5", "--", "true").check_error(216, "did not answer within 0.5 s")


def test_a_guest_whose_kernel_panics(bench: Bench) -> None:
    done = bench.sh("echo c >/proc/sysrq-trigger")
    done.check_error(218, "the guest's kernel panicked: sysrq triggered crash")


def test_a_guest_that_hangs_and_one_that_is_only_quiet(bench: Bench) -> None:
    process = bench.start("--silence-limit", "4", "--", "sh", "-c", "sleep 7; echo up; sleep 99")
    assert read_line(process.stdout) == b"up\n"  # silent for longer than the limit, yet alive
    machine = bench.machine()
    end = os.pidfd_open(machine)
    os.close(kill(machine, signal.SIGSTOP))
    with within(15):
        done = finish(process)
    done.check_error(217, "has been silent for 4 s")
    wait_for_end(end, 0)


def test_a_guest_that_sends_garbage(bench: Bench) -> None:
    write_garble(bench.work / "garble")
    done = bench.sh(SEND_GARBAGE, "--input", "garble")
    done.check_error(219, "the guest broke the protocol", "'GARBAGE' is not a STOMP command")


COPIES_SLOWLY = """
import sys, time
from boincvm.cli.main import main
from boincvm.guestlink.get import _Get
copy = _Get._copy_from_disk
def copy_slowly(*given):
    copy(*given)
    time.sleep(0.5)
_Get._copy_from_disk = copy_slowly
sys.exit(main())
"""


@pytest.fixture
def in_copy_out(bench: Bench) -> subprocess.Popen[bytes]:
    """Start a run and wait until it copies a large output back, in two dozen pieces."""
    script = "echo ready; head -c 192M /dev/zero >out"
    command = (sys.executable, "-P", "-c", COPIES_SLOWLY, "run", "--output", "out", "--")
    process = subprocess.Popen(
        [*command, "sh", "-c", script],
        cwd=bench.work,
        env=bench.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    bench.started.append(process)
    read_line(process.stdout)
    until(lambda: any(is_growing_beside(bench.work, process.pid)))
    return process


def is_growing_beside(directory: Path, pid: int) -> list[Path]:
    """Return the unnamed files in `directory` that the process `pid` has open and has written
    to."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has closed that one meanwhile
            target = str(descriptor.readlink())
            if target.startswith(f"{directory}/#") and descriptor.stat().st_blocks:
                found.append(descriptor)
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_an_output_comes_back(
    bench: Bench, in_copy_out: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    end = os.pidfd_open(bench.machine())
    in_copy_out.send_signal(number)
    with within(10):
        done = finish(in_copy_out)
    with within(10):
        wait_for_end(end)
    if number == signal.SIGKILL:
        assert done.code == -signal.SIGKILL
    else:
        done.check_error(128 + number, f"ended by {number.name}")
    assert list(bench.work.iterdir()) == []


@pytest.mark.parametrize("moment", ["start", "run"])
def test_our_own_process_is_killed(bench: Bench, moment: str) -> None:
    (bench.work / "in").write_bytes(b"input")
    before = digests(bench.work)
    process = bench.start("--input", "in", "--", "sh", "-c", "echo ready; sleep 1000")
    if moment == "run":
        read_line(process.stdout)
    until(bench.machines)
    end = os.pidfd_open(bench.machine())
    wait_for_end(kill(process.pid))
    with within(10):
        wait_for_end(end)
    # Killed before QEMU had its files open, some are left for the next run to remove.
    if moment == "start":
        assert bench.run("--", "true").code == 0
    assert digests(bench.work) == before


@pytest.mark.usefixtures("cold")
def test_a_machine_that_dies_while_it_starts(bench: Bench) -> None:
    process = bench.start("--", "true")
    until(bench.machines)
    os.close(kill(bench.machine()))
    with within(10):
        done = finish(process)
    done.check_error(215)


def test_more_memory_than_there_is(bench: Bench) -> None:
    bench.run("--memory", "1024G", "--", "true").check_error(224, "asks for 1.0 TiB of memory")


def test_no_such_image(bench: Bench) -> None:
    bench.run("--image", "missing", "--", "true").check_error(220, "there is no image missing")


@pytest.fixture
def own_image(bench: Bench, base_image: Path) -> Path:
    """Return the directory of a copy of the base image that the test may damage."""
    bench.data = bench.root / "data"
    images = bench.data / "boincvm/images"
    directory = images / "objects" / ImageStore().digest_of("base")
    shutil.copytree(base_image, directory)
    (images / "names").mkdir()
    (images / "names/base").write_text(directory.name)
    for path in directory.iterdir():
        path.chmod(0o600)
    return directory


@pytest.mark.parametrize("name", ["root.qcow2", "kernel", "initrd", "manifest.json"])
def test_a_damaged_image(bench: Bench, own_image: Path, name: str) -> None:
    path = own_image / name
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    bench.run("--", "true").check_error(221, name)
    path.write_bytes(content[:-1])
    bench.run("--", "true").check_error(221, name)
    path.unlink()
    bench.run("--", "true").check_error(221, name)


def test_an_image_altered_after_it_was_found_sound(bench: Bench, own_image: Path) -> None:
    assert bench.run("--", "true").code == 0
    with (own_image / "root.qcow2").open("r+b") as file:
        file.seek(1 << 20)
        byte = file.read(1)[0]
        file.seek(1 << 20)
        file.write(bytes([byte ^ 1]))
    bench.run("--", "true").check_error(221, "root.qcow2 of the image was altered")


def test_nowhere_to_keep_the_machine(bench: Bench) -> None:
    (bench.cache / "boincvm").write_text("a file where a directory should be")
    bench.run("--", "true").check_error(224, "there is no directory for the machine")
    (bench.cache / "boincvm").unlink()
