"""`boincvm run --driver virtualbox` where no machine can start; else see test_drivers_run.py."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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
    """Use the package's own VBoxHeadless."""
    use_virtualbox(monkeypatch, stock=True)
    done = run(tmp_path, "--", "true")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == ExitCode.HYPERVISOR_FAILED
    assert "Kernel driver not installed" in error["message"]
    assert "vboxconfig" in error["hint"]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a directory in which names of sockets are not too long."""
    with tempfile.TemporaryDirectory(prefix="boincvm-") as directory:
        yield Path(directory)


def test_a_machine_that_does_not_boot_in_time(
    monkeypatch: pytest.MonkeyPatch, base_image: Path, tmp_path: Path, short_path: Path
) -> None:
    """In the interpreter a boot takes a minute: the error names a screenshot."""
    use_virtualbox(monkeypatch)
    monkeypatch.setenv("BOINCVM_GOLDEN", "no")
    monkeypatch.setenv("XDG_CACHE_HOME", str(short_path))
    done = run(tmp_path, "--boot-limit", "3", "--", "true")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == ExitCode.GUEST_NEVER_BOOTED, error
    named = re.search(r"its screen then: (screenshots/.*\.png)", error["message"])
    assert named is not None, error
    assert (short_path / "boincvm" / named[1]).read_bytes().startswith(b"\x89PNG")


def test_without_virtualbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'empty'}{os.pathsep}")
    done = run(tmp_path, "--", "true")
    assert done.returncode == ExitCode.HYPERVISOR_MISSING
    assert "VBoxManage" in done.stdout
