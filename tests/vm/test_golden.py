"""Machines that start as copies of a booted machine."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boincvm.hypervisor.qemu.start_source import FIRST_LAYER, GOLDEN_MEMORY, GOLDEN_STATE
from boincvm.machine.golden.snapshots import TABLE
from boincvm.machine.golden.switch import SWITCH
from support.bench import Bench, finish, kill, until, wait_for_end
from support.golden_home import BOINCVM, LIMIT, GoldenHome, wait_for_maker

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def home(bench: Bench, tmp_path: Path) -> Iterator[GoldenHome]:
    home = GoldenHome(tmp_path / "data")
    yield home
    left = [path.name for path in home.images.rglob(".new-*")]
    assert left == []


def test_the_first_run_makes_one_and_the_second_starts_from_it(home: GoldenHome) -> None:
    assert home.run("true")["start"] == "cold"
    wait_for_maker(home)
    assert len(list((home.images / "golden").glob(f"*/{TABLE}"))) == 1
    assert home.run("true")["start"] == "golden"


RANDOM = r"""
import os, random, time, uuid
print(os.urandom(16).hex(), uuid.uuid4(), random.random(), hash("x"), id(object()))
print(open("/proc/sys/kernel/random/boot_id").read().strip())
print(open("/proc/sys/kernel/random/uuid").read().strip())
print(os.getrandom(16).hex())
print("clock", time.time_ns())
"""


def test_no_two_copies_share_a_random_number_and_their_clocks_are_right(home: GoldenHome) -> None:
    home.take_snapshot()
    seen: set[str] = set()
    for _ in range(4):
        before = time.time()
        result = home.run("python3", "-c", RANDOM)
        assert result["start"] == "golden"
        *lines, clock = str(result["stdout"]).splitlines()
        words = [word for line in lines for word in line.split()]
        assert len(words) == 8
        assert not seen & set(words)
        seen |= set(words)
        assert before - 1 < int(clock.split()[1]) / 1e9 < time.time() + 1


def test_copies_at_the_same_time_share_nothing_that_they_write(home: GoldenHome) -> None:
    home.take_snapshot()
    script = "cat /work/mine 2>/dev/null; echo $0 > /work/mine; sync; sleep 1; cat /work/mine"
    processes = [
        subprocess.Popen(
            [*BOINCVM, "run", "--memory", "256M", "--", "sh", "-c", script, f"name-{number}"],
            env=home.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    outputs = [process.communicate(timeout=LIMIT)[0] for process in processes]
    assert outputs == [f"name-{number}\n" for number in range(4)]
    assert home.run("ls", "/work")["stdout"] == ""


def test_a_network_card_has_an_address_of_its_own(home: GoldenHome) -> None:
    home.warm("--network")
    addresses = set()
    for _ in range(2):
        done = home.boincvm(
            "run", "--memory", "256M", "--network", "--json", "--",
            "cat", "/sys/class/net/eth0/address", "/proc/net/route",
        )  # fmt: skip
        result = json.loads(done.stdout)
        assert result["start"] == "golden"
        address, *routes = result["stdout"].splitlines()
        assert re.fullmatch(r"52(:[0-9a-f]{2}){5}", address)
        assert any(route.split()[:2] == ["eth0", "00000000"] for route in routes)
        addresses.add(address)
    assert len(addresses) == 2


@pytest.mark.parametrize("name", [GOLDEN_MEMORY, GOLDEN_STATE, FIRST_LAYER, TABLE])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_snapshot_is_not_used(home: GoldenHome, name: str, damage: str) -> None:
    path = home.take_snapshot() / name
    if damage == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    makes_another = (name, damage) in ((GOLDEN_MEMORY, "cut"), (TABLE, "gone"))
    result = home.run("true", **{SWITCH: "" if makes_another else "existing"})
    assert result["start"] == "cold"
    assert name in str(result["cold_because"])
    if makes_another:
        wait_for_maker(home)
        assert home.run("true")["start"] == "golden"


def test_a_copy_that_does_not_start_is_followed_by_a_boot(home: GoldenHome) -> None:
    """The state is another machine's, which its size and time do not show."""
    directory = home.take_snapshot()
    path = directory / GOLDEN_STATE
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[40:4000] = bytes(3960)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = home.run("echo", "done")
    assert (result["start"], result["stdout"]) == ("cold", "done\n")
    assert "QEMU did not start" in str(result["cold_because"])
    wait_for_maker(home)


@pytest.mark.parametrize("what", ["qemu", "processor", "machine"])
def test_another_qemu_or_processor(home: GoldenHome, what: str) -> None:
    table = home.take_snapshot() / TABLE
    content = json.loads(table.read_text())
    content["needs"][what] += " and newer"
    table.write_text(json.dumps(content))
    result = home.run("true", **{SWITCH: "" if what == "qemu" else "existing"})
    assert (result["start"], result["cold_because"]) == (
        "cold",
        "the hypervisor, CPU or boincvm has changed since it was made",
    )
    if what == "qemu":  # another is made
        wait_for_maker(home)
        assert home.run("true")["start"] == "golden"


def test_a_removed_image_takes_its_snapshots_along(home: GoldenHome) -> None:
    directory = home.take_snapshot()
    done = home.boincvm("image", "rm", "base")
    assert done.returncode == 0, done.stderr
    assert not directory.exists()


KILLED_MAKER = """
import os, signal
from boincvm.cli.main import main
from boincvm.machine.golden import maker
maker._write_table = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


def test_a_maker_that_is_killed_leaves_nothing_that_counts(home: GoldenHome) -> None:
    """It is killed when all but the table is there."""
    words = (sys.executable, "-c", KILLED_MAKER, "image", "warm", "--memory", "256M")
    done = subprocess.run(
        words, env=home.environment, stdout=subprocess.DEVNULL, timeout=LIMIT, check=False
    )
    assert done.returncode == -signal.SIGKILL
    golden = home.images / "golden"
    assert len(list(golden.glob(f".new-*/{GOLDEN_MEMORY}"))) == 1
    assert home.run("true", **{SWITCH: "existing"})["start"] == "cold"
    home.warm()  # removes what was left
    assert list(golden.glob(".new-*")) == []


def test_a_switch_turns_them_off(home: GoldenHome) -> None:
    home.take_snapshot()
    assert home.run("true", BOINCVM_GOLDEN="no")["start"] == "cold"


def test_a_switch_keeps_others_from_being_made(home: GoldenHome) -> None:
    only_existing = {SWITCH: "existing"}
    assert home.run("true", **only_existing)["start"] == "cold"
    wait_for_maker(home)
    assert not list(home.images.glob("golden/*"))
    home.take_snapshot()
    assert home.run("true", **only_existing)["start"] == "golden"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_as_soon_as_its_machine_begins(
    home: GoldenHome, bench: Bench, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.take_snapshot()
    monkeypatch.setenv("BOINCVM_GOLDEN", "")
    bench.data = home.images.parents[1]
    process = bench.start("--memory", "256M", "--", "sleep", "1000")
    until(bench.machines)
    (machine,) = bench.machines()
    end = os.pidfd_open(machine)
    wait_for_end(kill(process.pid, number))
    process.wait(60)
    wait_for_end(end)
    if number == signal.SIGKILL:  # then it is the next run that tidies up
        assert bench.run("--memory", "256M", "--", "true").code == 0


def test_a_copy_that_is_killed_while_it_starts(
    home: GoldenHome, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it was killed, even by the kernel for lack of memory, the snapshot is not at fault."""
    table = home.take_snapshot() / TABLE
    monkeypatch.setenv(SWITCH, "existing")
    bench.data = home.images.parents[1]
    process = bench.start("--memory", "256M", "--", "sleep", "1000")
    until(bench.machines)
    (machine,) = bench.machines()
    wait_for_end(kill(machine))
    finish(process).check_error(215, "killed", "signal 9 ended QEMU")
    assert table.exists()
    assert home.run("true")["start"] == "golden"
