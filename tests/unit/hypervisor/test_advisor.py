"""What the advisor determines, remembers, and determines again after a change."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier

import pytest

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor import advisor
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.contract import CONTRACT_VERSION, DriverPackage
from boincvm.hypervisor.preferences import preferences_file
from boincvm.hypervisor.registry import DEFAULT, driver_names
from boincvm.hypervisor.verdict import (
    Abilities,
    Ability,
    Isolation,
    Speed,
    Verdict,
)

LIMIT = 60.0
"""Seconds to wait for anything, at most."""
FINE = Verdict(
    "1.0",
    acceleration="some",
    speed=Speed.EMULATED,
    isolation=Isolation.SANDBOX,
    isolated_by="a box",
    abilities=Abilities(
        frozenset((Ability.NETWORK, Ability.GOLDEN)), 3, frozenset((Architecture.AARCH64,))
    ),
)


class Package:
    """A driver's package that counts its assessments."""

    contract_version = CONTRACT_VERSION

    def __init__(self, program: Path) -> None:
        self.depends_on = (str(program),)
        self.verdict: object = FINE
        self.error: BaseException | None = None
        self.asked = 0

    def assess(self, find_kernel: object) -> object:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.verdict


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Make it the only driver."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    (tmp_path / "program").touch()
    package = Package(tmp_path / "program")
    monkeypatch.setattr(advisor, "driver_names", lambda: ["it"])
    monkeypatch.setattr(advisor, "find_driver", lambda name: package)
    return package


def no_kernel() -> None:
    """Return None: there is no image here."""


def test_it_is_found_out_once(package: Package) -> None:
    assert advisor.known_verdicts() is None
    assert advisor.verdicts(no_kernel) == {"it": FINE}
    assert advisor.known_verdicts() == advisor.verdicts(no_kernel) == {"it": FINE}
    assert package.asked == 1
    assert advisor.verdicts(no_kernel, refresh=True) == {"it": FINE}
    assert package.asked == 2


def test_it_is_found_out_again_when_a_program_has_changed(package: Package, tmp_path: Path) -> None:
    advisor.verdicts(no_kernel)
    (tmp_path / "program").write_text("a newer one")
    advisor.verdicts(no_kernel)
    assert package.asked == 2
    (tmp_path / "program").unlink()
    advisor.verdicts(no_kernel)
    assert package.asked == 3


def test_or_a_package_was_installed(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "more"))
    (tmp_path / "more").mkdir()
    advisor.verdicts(no_kernel)
    advisor.verdicts(no_kernel)
    assert package.asked == 1
    (tmp_path / "more/another-1.0.dist-info").mkdir()
    advisor.verdicts(no_kernel)
    assert package.asked == 2


def test_or_the_host_was_booted(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    advisor.verdicts(no_kernel)
    monkeypatch.setattr(advisor, "boot_id", lambda: "another")
    advisor.verdicts(no_kernel)
    assert package.asked == 2


def test_or_the_preferences_have_changed(package: Package) -> None:
    advisor.verdicts(no_kernel)
    preferences_file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    preferences_file().write_text("machines = 1")
    advisor.verdicts(no_kernel)
    assert package.asked == 2


def test_or_a_variable_that_it_names(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    package.depends_on = ("$BOINCVM_TEST_URI",)
    for value, asked in (("one", 1), ("one", 1), ("another", 2)):
        monkeypatch.setenv("BOINCVM_TEST_URI", value)
        advisor.verdicts(no_kernel)
        assert package.asked == asked


def test_what_could_not_be_tried_is_not_remembered(package: Package) -> None:
    package.verdict = FINE._replace(is_final=False)
    advisor.verdicts(no_kernel)
    package.verdict = FINE
    assert advisor.verdicts(no_kernel) == {"it": FINE}


def test_what_is_valid_for_a_time_is_remembered_until_then(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    package.verdict = FINE._replace(valid_until=100.0)
    for now, asked in ((50.0, 1), (99.0, 1), (100.0, 2), (150.0, 3)):
        monkeypatch.setattr(advisor, "time", lambda now=now: now)
        assert advisor.verdicts(no_kernel) == {"it": package.verdict}
        assert package.asked == asked


@pytest.mark.parametrize(
    ("error", "trouble", "remedy"),
    [
        (HypervisorMissingError("it is gone", hint="get it"), "it is gone", "get it"),
        (ValueError("odd\n\x1b[2J"), "its checks failed: ValueError: odd[2J", ""),
        (SystemExit(3), "its checks failed: SystemExit: 3", ""),
        (OSError(5, "Input/output error"), "its checks failed: OSError: [Errno 5]", ""),
    ],
)
def test_a_driver_whose_checks_fail(
    package: Package, error: BaseException, trouble: str, remedy: str
) -> None:
    package.error = error
    verdict = advisor.verdicts(no_kernel)["it"]
    assert verdict.trouble.startswith(trouble)
    assert verdict.remedy == remedy
    assert not verdict.is_usable


@pytest.mark.parametrize("returned", [None, "fine", ("1.0", ""), 3])
def test_a_driver_that_returns_something_else(package: Package, returned: object) -> None:
    package.verdict = returned
    assert "it returned" in advisor.verdicts(no_kernel)["it"].trouble


def test_a_driver_that_does_not_answer(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import Event

    never = Event()
    monkeypatch.setattr(advisor, "LIMIT", 0.05)
    monkeypatch.setattr(advisor, "PATIENCE", 0.05)
    monkeypatch.setattr(package, "assess", lambda find_kernel: never.wait(30))
    verdict = advisor.verdicts(no_kernel)["it"]
    never.set()
    assert "took more than 0.05 s" in verdict.trouble
    assert advisor.known_verdicts() is None


def test_the_only_driver_is_waited_for(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, whose virus scanner reads QEMU first."""
    from threading import Event

    def assess_late(find_kernel: object) -> Verdict:
        Event().wait(0.2)
        return FINE

    monkeypatch.setattr(advisor, "LIMIT", 0.0)
    monkeypatch.setattr(package, "assess", assess_late)
    assert advisor.verdicts(no_kernel) == {"it": FINE}


def test_the_usual_driver_is_waited_for(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy host another one would be chosen, which may make no checkpoints."""
    from threading import Event

    def assess_late(find_kernel: object) -> Verdict:
        Event().wait(0.2)
        return FINE

    def find_driver(name: str) -> Package:
        if name != DEFAULT:
            return package
        late = Package(Path(package.depends_on[0]))
        monkeypatch.setattr(late, "assess", assess_late)
        return late

    monkeypatch.setattr(advisor, "LIMIT", 0.0)
    monkeypatch.setattr(advisor, "driver_names", lambda: [DEFAULT, "it"])
    monkeypatch.setattr(advisor, "find_driver", find_driver)
    assert advisor.verdicts(no_kernel) == {DEFAULT: FINE, "it": FINE}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"key": []}',
        '{"key": [], "depends_on": 3}',
        '{"key": [], "depends_on": [3], "verdicts": {}}',
    ],
)
def test_a_damaged_file_is_not_believed(package: Package, damage: str) -> None:
    advisor.verdicts(no_kernel)
    advisor._file().write_text(damage)
    assert advisor.verdicts(no_kernel) == {"it": FINE}
    assert package.asked == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("speed", "WARP"), ("isolation", 7), ("abilities", 3), ("abilities", ["fly"]), ("x", 1)],
)
def test_a_file_of_another_version_is_not_believed(
    package: Package, name: str, value: object
) -> None:
    advisor.verdicts(no_kernel)
    table = json.loads(advisor._file().read_text())
    table["verdicts"]["it"][name] = value
    advisor._file().write_text(json.dumps(table))
    assert advisor.verdicts(no_kernel) == {"it": FINE}
    assert package.asked == 2


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install a third-party driver whose import fails."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    (tmp_path / "their_driver.py").write_text("import nothing_of_that_name\n")
    about = tmp_path / "their_driver-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-driver\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[boincvm.drivers]\ntheirs = their_driver:PACKAGE\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("their_driver", None)


@pytest.mark.usefixtures("theirs")
def test_somebody_elses_broken_driver_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advisor, "LIMIT", LIMIT)  # a busy host delays the checks of ours
    found = advisor.verdicts(no_kernel)
    assert "No module named 'nothing_of_that_name'" in found["theirs"].trouble
    assert found["qemu"].is_usable
    assert found["uml"].is_usable


def test_all_of_this_host_are_asked_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them answers before all have been asked."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(advisor, "LIMIT", LIMIT)
    all_asked = Barrier(len(driver_names()))
    find_driver = advisor.find_driver

    def find_when_all_asked(name: str) -> DriverPackage:
        all_asked.wait(LIMIT)
        return find_driver(name)

    monkeypatch.setattr(advisor, "find_driver", find_when_all_asked)
    found = advisor.verdicts(no_kernel)
    assert list(found)[:2] == ["qemu", "uml"]
    assert not any("BrokenBarrier" in verdict.trouble for verdict in found.values())
