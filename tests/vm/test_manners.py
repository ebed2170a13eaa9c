"""Real machines on one host: how many there may be, and what killed ones leave."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.registry import BUILT_IN
from boincvm.machine.admission import Admission
from boincvm.paths import data_directory
from support.bench import read_line
from support.cleaned import cleaned
from support.command_line import BOINCVM, boincvm

pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("base_image")]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user who has the images of this one, and nothing else."""
    directory = tmp_path / "configuration/boincvm"
    directory.mkdir(parents=True)
    (directory / "preferences.toml").write_text("machines = 1\n")
    return {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_CONFIG_HOME": str(tmp_path / "configuration"),
        "XDG_DATA_HOME": str(data_directory().parent),
    }


@contextmanager
def running(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a machine whose program runs until its input ends."""
    with ExitStack() as stack:
        process = subprocess.Popen(
            [BOINCVM, "run", "--", "sh", "-c", "echo begun; cat"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        assert read_line(process.stdout) == b"begun\n"
        yield process


def test_one_machine_and_no_more(environment: dict[str, str]) -> None:
    with running(environment) as process:
        refused = boincvm("run", "--", "echo", "done", environment=environment)
        assert refused.returncode == ExitCode.HOST
        assert "your preferences allow no more machines" in refused.stderr
        assert process.poll() is None
        process.kill()
        process.wait()
    assert boincvm("run", "--", "echo", "done", environment=environment).stdout == "done\n"


@pytest.mark.parametrize("driver", [name for name in BUILT_IN if name != "fake"])
def test_each_driver_counts_the_machines_of_the_others(
    environment: dict[str, str], driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything of the driver is looked for: it need not be installed."""
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, environment[name])
    seat = Admission(1)
    try:
        refused = boincvm("run", "--driver", driver, "--", "true", environment=environment)
    finally:
        seat.end()
    assert refused.returncode == ExitCode.HOST, refused.stderr
    assert "your preferences allow no more machines on this host (machines = 1)" in refused.stderr


def test_what_a_killed_run_has_left_is_removed(environment: dict[str, str]) -> None:
    with running(environment) as process:
        unchanged = boincvm("doctor", "--clean", environment=environment).stdout
        assert cleaned(unchanged) == []
        process.kill()
        process.wait()
    removed = boincvm("doctor", "--clean", environment=environment).stdout
    assert "removed records of running machines: 1" in cleaned(removed)
    runs = Path(environment["XDG_CACHE_HOME"]) / "boincvm/runs"
    assert list(runs.iterdir()) == []
