"""Drivers are found by their names: ours, and those of other packages."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from boincvm.errors import UsageError
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.contract import CONTRACT_VERSION
from boincvm.hypervisor.registry import (
    BUILT_IN,
    DEFAULT,
    BrokenDriverError,
    driver_names,
    find_driver,
)


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
    assert caught.value.hint == "choose one of: qemu, uml, virtualbox, libvirt, vmware"
    assert "\x1b" not in caught.value.message


Install = Callable[[str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package whose module `their_driver` has this text, with a driver `theirs`."""

    def put(text: str) -> None:
        (tmp_path / "their_driver.py").write_text(text)
        about = tmp_path / "their_driver-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-driver\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(
            "[boincvm.drivers]\ntheirs = their_driver:PACKAGE\n"
        )
        monkeypatch.syspath_prepend(tmp_path)

    yield put
    sys.modules.pop("their_driver", None)


def test_somebody_elses(install: Install) -> None:
    install(f"class PACKAGE:\n    name = 'theirs'\n    contract_version = {CONTRACT_VERSION}\n")
    assert driver_names() == ["qemu", "uml", "virtualbox", "libvirt", "vmware", "theirs"]
    assert "their_driver" not in sys.modules
    assert find_driver("theirs").name == "theirs"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that"),
        ("def", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise RuntimeError('\\x1b[2J' + 'x' * 10000)", "RuntimeError: [2Jxxx"),
        ("PACKET = 1", "AttributeError"),
        ("class PACKAGE:\n    name = 'theirs'", "no attribute 'contract_version'"),
        ("class PACKAGE:\n    contract_version = 99", "it was written for version 99 of"),
        ("class PACKAGE:\n    contract_version = '1'", "it was written for version '1' of"),
    ],
)
def test_a_broken_one_of_somebody_else_is_named(install: Install, text: str, why: str) -> None:
    install(text)
    with pytest.raises(BrokenDriverError) as caught:
        find_driver("theirs")
    message = caught.value.message
    assert message.startswith("the driver theirs (of the package their-driver) cannot be used: ")
    assert why in message
    assert message.isprintable()
    assert len(message) < 300
    assert caught.value.hint
    assert caught.value.exit_code is ExitCode.HYPERVISOR_MISSING
    assert find_driver("uml").name == "uml"


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
