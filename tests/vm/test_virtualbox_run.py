"""`boincvm run --driver virtualbox` where no machine can start; else see test_drivers_run.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.exit_codes import ExitCode
from support.virtualbox.fixture import use_virtualbox

BOINCVM = Path(sys.executable).with_name("boincvm")
LIMIT = 120.0


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BOINCVM, "run", "--driver", "virtualbox", "--json", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_without_the_kernel_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the package's own VBoxHeadless."""
    use_virtualbox(monkeypatch, stock=True)
    done = run(tmp_path, "--", "true")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == ExitCode.HYPERVISOR_FAILED
    assert "Kernel driver not installed" in error["message"]
    assert "vboxconfig" in error["hint"]


def test_without_virtualbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'empty'}{os.pathsep}")
    done = run(tmp_path, "--", "true")
    assert done.returncode == ExitCode.HYPERVISOR_MISSING
    assert "VBoxManage" in done.stdout
