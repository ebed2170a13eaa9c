"""The example driver, installed as a separate package, does what the manual says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.exit_codes import ExitCode
from support.command_line import boincvm

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.timeout(290), pytest.mark.usefixtures("base_image")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment in which the example is installed."""
    directory = tmp_path_factory.mktemp("installed")
    # Nothing is fetched: what builds it is in the environment of the tests.
    options = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(directory)]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
    subprocess.run([*command, str(ROOT / "examples/driver")], check=True, timeout=120)
    return {**os.environ, "PYTHONPATH": str(directory)}


def test_a_run(installed: dict[str, str]) -> None:
    done = boincvm(
        "run", "-v", "--driver", "plainqemu", "--", "echo", "done", environment=installed
    )
    assert done.stdout == "done\n", done.stderr
    assert done.stderr == "boincvm: the driver plainqemu: --driver asks for it\n"


def test_doctor_knows_it(installed: dict[str, str]) -> None:
    done = boincvm("doctor", environment=installed)
    assert "plain qemu" in done.stdout
    assert " plainqemu " in done.stdout
    assert done.returncode == 0


def test_another_version_of_the_contract(installed: dict[str, str], tmp_path: Path) -> None:
    """It is reported and refused, and does not affect others."""
    directory = tmp_path / "old"
    (directory / "old-1.0.dist-info").mkdir(parents=True)
    about = directory / "old-1.0.dist-info"
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: old\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[boincvm.drivers]\nold = old_driver:PACKAGE\n")
    (directory / "old_driver.py").write_text("class PACKAGE:\n    contract_version = 0\n")
    environment = {**installed, "PYTHONPATH": f"{installed['PYTHONPATH']}:{directory}"}
    done = boincvm("run", "--driver", "old", "--", "true", environment=environment)
    assert done.returncode == ExitCode.HYPERVISOR_MISSING
    assert "the driver old (of the package old) cannot be used" in done.stderr
    assert "version 0 of the drivers' contract" in done.stderr
    doctor = boincvm("doctor", environment=environment)
    assert "the driver old (of the package old) cannot be used" in " ".join(doctor.stdout.split())
    assert doctor.returncode == 0
    assert boincvm("run", "--", "echo", "done", environment=environment).stdout == "done\n"


@pytest.mark.first
def test_the_conformance_suite(installed: dict[str, str], tmp_path: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--basetemp", str(tmp_path / "of")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/hypervisor"],
        cwd=ROOT,
        env={**installed, "BOINCVM_TEST_DRIVERS": "plainqemu"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
