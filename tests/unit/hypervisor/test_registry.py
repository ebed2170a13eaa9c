"""Drivers are found by their names: ours, and those that other packages bring."""

import subprocess
import sys
from pathlib import Path

import pytest

from boincvm.errors import UsageError
from boincvm.hypervisor.registry import BUILT_IN, DEFAULT, driver_names, find_driver


@pytest.mark.parametrize("name", BUILT_IN)
def test_ours(name: str) -> None:
    assert find_driver(name).name == name


def test_the_one_that_is_taken_where_none_is_asked_for() -> None:
    assert find_driver().name == DEFAULT == driver_names()[0]
    assert "fake" not in driver_names()


@pytest.mark.parametrize("name", ["none", "", "os", "boincvm.hypervisor.qemu", "\x1b[2J"])
def test_there_is_no_such_driver(name: str) -> None:
    with pytest.raises(UsageError, match="there is no driver") as caught:
        find_driver(name)
    assert caught.value.hint == "choose one of: qemu, uml"
    assert "\x1b" not in caught.value.message


def test_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_driver.py").write_text("class PACKAGE:\n    name = 'theirs'\n")
    about = tmp_path / "their_driver-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-driver\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[boincvm.drivers]\ntheirs = their_driver:PACKAGE\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert driver_names() == ["qemu", "uml", "theirs"]
    assert "their_driver" not in sys.modules
    assert find_driver("theirs").name == "theirs"


def test_only_the_driver_that_is_used_is_imported() -> None:
    program = (
        "import sys; from boincvm.hypervisor.registry import find_driver; find_driver('uml');"
        "print(*(name for name in sys.modules if name.startswith('boincvm.hypervisor.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = done.stdout.decode().split()
    assert "boincvm.hypervisor.uml.package" in loaded
    assert not any(name.startswith("boincvm.hypervisor.qemu") for name in loaded)
    assert "boincvm.hypervisor.uml.driver" not in loaded
