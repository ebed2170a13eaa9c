"""`boincvm run --driver virtualbox`, with the real VirtualBox: from the boot to the results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.exit_codes import ExitCode
from support.virtualbox.fixture import use_virtualbox

BOINCVM = Path(sys.executable).with_name("boincvm")
LIMIT = 500.0
"""Seconds that a boot and a program may take on a busy host, each instruction interpreted."""
LIMITS = ("--memory", "256M", "--boot-limit", f"{LIMIT:g}", "--silence-limit", f"{LIMIT:g}")


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BOINCVM, "run", "--driver", "virtualbox", "--json", *LIMITS, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.first
@pytest.mark.timeout(560)
def test_ecm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A number goes in, its factors come out."""
    use_virtualbox(monkeypatch)
    build = ["image", "build", "--if-missing", "--package", "gmp-ecm", "sci"]
    subprocess.run([BOINCVM, *build], check=True, stdout=subprocess.DEVNULL, timeout=LIMIT)
    (tmp_path / "number").write_text("1234567891011\n")
    files = ("--image", "sci", "--input", "number", "--output", "factors")
    script = "ecm -q -sigma 0:7 50 <number >factors; cat factors"
    done = run(tmp_path, *files, "--", "sh", "-c", script)
    told = json.loads(done.stdout)
    assert told["exit_code"] == 0, told
    factors = (tmp_path / "factors").read_text()
    assert told["stdout"] == factors
    product = 1
    for factor in factors.split():
        product *= int(factor)
    assert product == 1234567891011


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
