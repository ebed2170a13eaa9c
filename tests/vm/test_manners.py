"""Real machines on one host: how many there may be, and what is left of those that are killed."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from boincvm.exit_codes import ExitCode
from boincvm.paths import data_directory
from support.command_line import BOINCVM, boincvm

pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("base_image")]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user with the images of this one, and with nothing else."""
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
def running(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A machine whose program runs until its input ends."""
    with ExitStack() as stack:
        process = subprocess.Popen(
            [BOINCVM, "run", "--", "sh", "-c", "echo begun; cat"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process


def test_one_machine_and_no_more(environment: dict[str, str]) -> None:
    with running(environment) as process:
        refused = boincvm("run", "--", "echo", "done", environment=environment)
        assert refused.returncode == ExitCode.HOST
        assert "as your preferences allow (machines = 1)" in refused.stderr
        assert process.poll() is None
        process.kill()
        process.wait()
    assert boincvm("run", "--", "echo", "done", environment=environment).stdout == "done\n"


def test_what_a_killed_run_has_left_is_removed(environment: dict[str, str]) -> None:
    with running(environment) as process:
        assert "nothing was left" in boincvm("doctor", "--clean", environment=environment).stdout
        process.kill()
        process.wait()
    cleaned = boincvm("doctor", "--clean", environment=environment).stdout
    assert "removed places among the machines of this host: 1\n" in cleaned
    runs = Path(environment["XDG_CACHE_HOME"]) / "boincvm/runs"
    assert list(runs.iterdir()) == []
