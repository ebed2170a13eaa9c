"""A machine that is begun before its run knows which one it wants."""

import json
import marshal
import os
import signal
from pathlib import Path

import pytest
from bench import Bench, kill, read_line, until, wait_for_end
from golden_home import GoldenHome, wait_for_maker

from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.early_qemu import STATE
from boincvm.hypervisor.qemu_origin import FIRST_LAYER, GOLDEN_MEMORY, GOLDEN_STATE
from boincvm.wrapper.golden import TABLE

pytestmark = pytest.mark.timeout(200)
SMALL, LARGE = ("--memory", "256M"), ("--memory", "320M")


@pytest.fixture
def home(base_image: Path, tmp_path: Path) -> GoldenHome:
    home = GoldenHome(tmp_path / "data")
    home.warm()
    return home


@pytest.fixture
def place(bench: Bench, home: GoldenHome, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Where one run has begun late, and the next ones of the same machine can begin early."""
    monkeypatch.setenv("BOINCVM_GOLDEN", "")
    bench.data = home.images.parents[1]
    assert start_of(bench, *SMALL) == "golden"
    assert plans(bench)
    return bench


def start_of(bench: Bench, *options: str) -> object:
    done = bench.run(*options, "--json", "--", "true")
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)["start"]


def plans(bench: Bench) -> Path:
    return bench.cache / "boincvm/run-plans"


def is_early(machine: int) -> bool:
    """Whether its process has the descriptors of a plan."""
    return f"fd:{STATE}".encode() in Path(f"/proc/{machine}/cmdline").read_bytes().split(b"\0")


def guest_megabytes(bench: Bench, *options: str) -> int:
    done = bench.run(*options, "--", "grep", "MemTotal", "/proc/meminfo")
    assert done.code == 0, done.stderr
    return int(done.stdout.split()[1]) >> 10


def test_the_second_run_of_a_machine_begins_early(place: Bench) -> None:
    process = place.start(*SMALL, "--", "sh", "-c", "echo ready; exec sleep 1000")
    assert read_line(process.stdout) == b"ready\n"
    assert is_early(place.machine())
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM


def test_a_wrong_guess_is_no_harm(place: Bench, home: GoldenHome) -> None:
    """The plans of two machines are interchanged."""
    home.boincvm("image", "warm", *LARGE)
    assert guest_megabytes(place, *LARGE) > 256
    first, second = marshal.loads(plans(place).read_bytes())
    plans(place).write_bytes(marshal.dumps([(first[0], second[1]), (second[0], first[1])]))
    for _ in range(2):
        assert guest_megabytes(place, *SMALL) < 256
        assert guest_megabytes(place, *LARGE) > 256
    assert marshal.loads(plans(place).read_bytes()) == [first, second]


@pytest.mark.parametrize("name", [GOLDEN_MEMORY, GOLDEN_STATE, FIRST_LAYER, TABLE])
def test_a_snapshot_that_is_gone_since(place: Bench, home: GoldenHome, name: str) -> None:
    (path,) = (home.images / "golden").glob(f"*/{name}")
    path.unlink()
    assert start_of(place, *SMALL) == "cold"
    wait_for_maker(home)
    assert start_of(place, *SMALL) == "golden"


def test_a_snapshot_that_is_damaged_since(place: Bench, home: GoldenHome) -> None:
    (path,) = (home.images / "golden").glob(f"*/{GOLDEN_STATE}")
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[40:4000] = bytes(3960)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    done = place.run(*SMALL, "--", "echo", "done")
    assert done.stdout == b"done\n"
    assert "QEMU did not start" in done.stderr
    wait_for_maker(home)


def test_a_usage_error_ends_it(place: Bench) -> None:
    done = place.run(*SMALL, "--memory", "none", "--", "true")
    done.says(ExitCode.USAGE, "none")
    plans(place).write_bytes(
        marshal.dumps(
            [([*SMALL, "--memory", "none"], marshal.loads(plans(place).read_bytes())[0][1])]
        )
    )
    place.run(*SMALL, "--memory", "none", "--", "true").says(ExitCode.USAGE, "none")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_as_soon_as_its_machine_begins(
    place: Bench, number: signal.Signals
) -> None:
    process = place.start(*SMALL, "--", "sleep", "1000")
    until(place.machines)
    (machine,) = place.machines()
    end = os.pidfd_open(machine)
    kill(process.pid, number)
    process.wait(60)
    wait_for_end(end)
    if number == signal.SIGKILL:  # then it is the next run that tidies up
        assert start_of(place, *SMALL) == "golden"
