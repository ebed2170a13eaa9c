"""A guest that ends while a program runs in it: cause and code are the same whether its machine
booted, is a copy of a golden snapshot, or resumed."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from boincvm.boinc import Control
from boincvm.boinc.testing import EndKind
from boincvm.hypervisor.qemu.start_source import GOLDEN_STATE
from boincvm.machine.golden.snapshots import TABLE
from boincvm.machine.golden.switch import SWITCH
from support.controller.controlled import LIMIT, controlled
from support.counting import RESUMED
from support.golden_home import GoldenHome, wait_for_maker
from support.slot import Slot

pytestmark = [pytest.mark.timeout(250), pytest.mark.usefixtures("base_image")]
PANIC = "the guest's kernel panicked: sysrq triggered crash"
OFF = "the guest turned itself off or rebooted"
ENDS = {"o": OFF, "b": OFF, "c": PANIC}
"""What the guest's kernel is told by /proc/sysrq-trigger (Documentation/admin-guide/sysrq.rst of
Linux: power off, reboot, crash), and what is then said of it."""
SOURCES = {"booted": "no", "cloned": "yes"}


def script(word: str) -> str:
    return f"echo {word} >/proc/sysrq-trigger; sleep 1000"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, base_image: Path) -> GoldenHome:
    """Return a home with a golden snapshot."""
    home = GoldenHome(tmp_path_factory.mktemp("home") / "data")
    home.take_snapshot()
    return home


@pytest.fixture
def controllers_golden(home: GoldenHome) -> Iterator[Path]:
    """Return the directory of the snapshot for machines of a controller."""
    yield home.take_snapshot(durable=True)
    wait_for_maker(home)


@pytest.mark.parametrize("word", ENDS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_run(home: GoldenHome, source: str, word: str) -> None:
    done = home.boincvm(
        "run", "--memory", "256M", "--json", "--", "sh", "-c", script(word),
        BOINCVM_GOLDEN=SOURCES[source],
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert result["start"] == ("golden" if source == "cloned" else "cold")
    assert result["error"]["message"] == ENDS[word]
    assert done.returncode == result["exit_code"] == 218


async def test_a_task_that_goes_on_from_the_disk(tmp_path: Path) -> None:
    async with Slot(tmp_path, period=0.25) as slot:
        waits = f"first=$(cat /etc/machine-id); echo begin; until {RESUMED}; do sleep 0.1; done"
        slot.machine_job(f"{waits}; {script('c')}")
        await slot.begin()
        await slot.wait_for_text("out", "begin")
        slot.send(Control.QUIT)
        assert (await slot.wait(LIMIT)).kind is EndKind.QUIT, slot.stderr
        end = await slot.run()
        assert (end.kind, PANIC in end.text) == (EndKind.TEMPORARY_EXIT, True), slot.stderr


async def test_a_machine_whose_golden_snapshot_is_of_no_use(
    home: GoldenHome, controllers_golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It boots, its log gives the reason, and the snapshot is removed or already recreated."""
    monkeypatch.setenv("XDG_DATA_HOME", home.environment["XDG_DATA_HOME"])
    monkeypatch.delenv(SWITCH)
    state = controllers_golden / GOLDEN_STATE
    before, table = state.stat(), controllers_golden / TABLE
    damaged = bytearray(state.read_bytes())
    damaged[40:4000] = bytes(3960)
    state.write_bytes(damaged)
    os.utime(state, ns=(before.st_atime_ns, before.st_mtime_ns))
    # While it is open no other file gets its number.
    with table.open() as made:
        async with controlled(tmp_path / "c") as asked:
            await asked("create", name="a", memory="256M")
            started = await asked.outcome("start", "a")
            assert started.get("error") is None
            assert await asked.run("a", "echo", "up") == {"a": (0, "up\n")}
            log = asked.directory("a").log.read_text()
            assert "booted cold: the golden snapshot was unusable" in log
            with suppress(FileNotFoundError):
                assert table.stat().st_ino != os.fstat(made.fileno()).st_ino
