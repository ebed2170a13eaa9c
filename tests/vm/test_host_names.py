"""Host names of machines, however they start."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from boincvm.machine.golden.switch import SWITCH
from support.controller.controlled import controlled
from support.golden_home import GoldenHome
from support.slot import Slot

pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("base_image")]
SCRIPT = (
    "uname -n; cat /etc/hostname;"
    " python3 -c 'import _socket; print(_socket.gethostbyname(_socket.gethostname()))'"
)
"""By the kernel, by its file, and what address it has."""
STARTS = {"cold": "no", "golden": "yes"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, base_image: Path) -> GoldenHome:
    """Return a home with a golden snapshot, which serves all names."""
    home = GoldenHome(tmp_path_factory.mktemp("home") / "data")
    home.take_snapshot()
    return home


@pytest_asyncio.fixture
async def slot(tmp_path: Path) -> AsyncIterator[Slot]:
    async with Slot(tmp_path, period=0.25) as slot:
        yield slot


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    ("name", "reported"),
    [("fold.7 of 9", "fold-7-of-9 fold-7-of-9 127.0.1.1"), ("", "guest guest 127.0.0.1")],
)
def test_a_run_has_the_name_of_its_job(
    home: GoldenHome, tmp_path: Path, start: str, name: str, reported: str
) -> None:
    job = tmp_path / "job.toml"
    first = f"name = '{name}'\n" if name else ""
    command = json.dumps(["sh", "-c", SCRIPT])
    job.write_text(f"{first}[machine]\nmemory = '256M'\n[[task]]\ncommand = {command}\n")
    done = home.boincvm("run", "--json", str(job), BOINCVM_GOLDEN=STARTS[start])
    result = json.loads(done.stdout)
    assert (result["start"], result["stdout"].split()) == (start, reported.split())


@pytest.mark.parametrize("start", STARTS)
async def test_a_machine_of_the_controller(
    home: GoldenHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", home.environment["XDG_DATA_HOME"])
    monkeypatch.setenv(SWITCH, STARTS[start])
    async with controlled(tmp_path / "c") as asked:
        await asked("create", name="web.1", memory="256M")
        await asked.outcome("start", "web.1")
        ((code, text),) = (await asked.run("web.1", "sh", "-c", SCRIPT)).values()
        assert (code, text.split()) == (0, ["web-1", "web-1", "127.0.1.1"])


async def test_a_task_has_the_name_of_its_work_unit(slot: Slot) -> None:
    """It is the same on every host, and reveals nothing about this one."""
    slot.machine_job(SCRIPT)
    end = await slot.run()
    assert (slot.path / "out").read_text().split() == [*["fake-work-unit"] * 2, "127.0.1.1"], end
