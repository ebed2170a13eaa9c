"""`boincvm doctor`: one finding per line, and an exit code that scripts can use."""

import io
import json
import sys
from itertools import chain
from pathlib import Path

import pytest

from boincvm import paths
from boincvm.cli import checks, doctor
from boincvm.cli.main import main
from boincvm.errors import HypervisorMissingError
from boincvm.exit_codes import ExitCode
from boincvm.host import resources_posix
from boincvm.hypervisor.doctor import Check, Status
from boincvm.hypervisor.qemu import acceleration
from boincvm.hypervisor.qemu import doctor as qemu_doctor
from boincvm.hypervisor.qemu.acceleration import Verdict
from boincvm.hypervisor.registry import BrokenDriverError, find_driver
from boincvm.hypervisor.uml import doctor as uml_doctor
from boincvm.hypervisor.verdict import Abilities, Ability, Isolation, Speed, unusable
from boincvm.hypervisor.verdict import Verdict as DriverVerdict
from boincvm.image.store import ImageStore
from boincvm.paths import guest_kernel

FINE = Check("one", Status.OK, "all is well")
SO_SO = Check("twenty", Status.WARNING, "so so", "do this")
BROKEN = Check("three", Status.FAILED, "broken", "do that", ExitCode.IMAGE_MISSING)


@pytest.fixture
def found(monkeypatch):
    def install(*findings):
        looks = tuple((check.name, lambda check=check: check) for check in findings)
        monkeypatch.setattr(checks, "groups", lambda: checks.Groups((), (), looks))

    return install


GOOD = DriverVerdict("7.2", isolation=Isolation.SANDBOX, speed=Speed.EMULATED)


@pytest.fixture(autouse=True)
def drivers(monkeypatch):
    """Set the verdicts on the drivers to a single usable one."""
    found = {"qemu": GOOD}
    monkeypatch.setattr(checks, "verdicts", lambda: (found, []))
    return found


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """Set PATH to a directory that contains only what the test writes."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))

    def write(name, script):
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)

    return write


def no_kernel():
    """Return None: there is no image here."""


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_list(found, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found(FINE, SO_SO, BROKEN)
    assert main(["doctor"]) == ExitCode.IMAGE_MISSING
    assert capsys.readouterr().out.splitlines() == [
        "✓ one     all is well",
        "! twenty  so so",
        "          -> do this",
        "✗ three   broken",
        "          -> do that",
        "drivers, the best one first:",
        "1 qemu  emulation, 15 to 23 times slower than the host, isolated by a sandbox,",
        "        no checkpoints",
        "a job cannot run here yet",
    ]


def test_warnings_keep_no_job_from_running(found, capsys):
    found(FINE, SO_SO)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("\na job can run here\n")


def test_plain_signs_where_the_encoding_has_no_others(found, monkeypatch):
    found(FINE, BROKEN)
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert main(["doctor"]) == ExitCode.IMAGE_MISSING
    text = output.buffer.getvalue().decode("ascii")
    assert text.splitlines()[:2] == ["+ one    all is well", "x three  broken"]


def test_long_findings_are_wrapped_and_aligned():
    text = doctor.report([Check("name", Status.OK, "word " * 40, "remedy")], 60)
    lines = text.splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) <= 60
    assert all(line.startswith(" " * 8) for line in lines[1:-1])


def test_json(found, capsys):
    found(FINE, BROKEN)
    assert main(["doctor", "--json"]) == ExitCode.IMAGE_MISSING
    reported = json.loads(capsys.readouterr().out)
    assert reported["can_run_jobs"] is False
    assert reported["checks"][1] == {
        "name": "three",
        "status": "failed",
        "detail": "broken",
        "remedy": "do that",
    }


def test_a_check_that_cannot_be_made_is_a_finding(monkeypatch, capsys):
    def breaks():
        raise HypervisorMissingError("no QEMU", hint="install it")

    def breaks_too():
        raise PermissionError(13, "Permission denied")

    def breaks_badly():
        raise ZeroDivisionError("division\nby zero")

    looks = (("a", breaks), ("b", breaks_too), ("c", breaks_badly))
    monkeypatch.setattr(checks, "groups", lambda: checks.Groups((), (), looks))
    assert main(["doctor"]) == ExitCode.HYPERVISOR_MISSING
    out = capsys.readouterr().out
    assert "c  the check failed: ZeroDivisionError: divisionby zero" in out
    assert "a  no QEMU" in out
    assert "-> install it" in out
    assert "Permission denied" in out


def test_python():
    assert checks.python().status is Status.OK


@pytest.mark.parametrize(
    ("script", "status", "detail"),
    [
        ("echo QEMU emulator version 7.2.22 '(Debian 1:7.2)'", Status.OK, "version 7.2.22"),
        ("echo QEMU emulator version 10.0.1", Status.OK, "version 10.0.1"),
        ("echo QEMU emulator version 7.1.9", Status.FAILED, "version 7.1.9, is too old"),
        ("echo what", Status.FAILED, "does not report its version: what"),
        ("echo no library >&2; exit 127", Status.FAILED, "no library"),
        ("exit 1", Status.FAILED, "it printed nothing"),
    ],
)
def test_qemu(programs, script, status, detail):
    programs("qemu-system-x86_64", script)
    (check,) = qemu_doctor.program(no_kernel)
    assert check.status is status
    assert detail in check.detail
    assert bool(check.remedy) is (status is not Status.OK)


def test_a_host_without_anything(programs, home):
    for poll in (qemu_doctor.program, qemu_doctor.image_tool, qemu_doctor.sandbox):
        (finding,) = poll(no_kernel)
        assert finding.status is Status.FAILED
    assert checks.setpriv().status is Status.WARNING
    assert "apt-get" in qemu_doctor.program(no_kernel)[0].remedy
    (finding,) = checks.examine("acceleration", lambda: qemu_doctor.acceleration(no_kernel))
    assert finding.status is Status.FAILED
    assert finding.exit_code is ExitCode.HYPERVISOR_MISSING


def test_the_sandbox(programs):
    programs("qemu-system-x86_64", 'test "$1" = -sandbox && echo fine')
    assert qemu_doctor.sandbox(no_kernel)[0].status is Status.OK
    programs("qemu-system-x86_64", "echo -sandbox support is not enabled >&2; exit 1")
    (check,) = qemu_doctor.sandbox(no_kernel)
    assert check.status is Status.FAILED
    assert check.detail == "-sandbox support is not enabled"


def verdict_is(monkeypatch, verdict):
    async def probe(kernel, *, refresh=False):
        return verdict

    monkeypatch.setattr(acceleration, "probe", probe)


def test_acceleration(monkeypatch, home):
    verdict_is(monkeypatch, Verdict("kvm", "a kernel booted", 0.31))
    (check,) = qemu_doctor.acceleration(no_kernel)
    assert check == Check("acceleration", Status.OK, "kvm: a kernel booted (tested in 0.3 s)")


def test_emulation_is_named_as_what_it_is(monkeypatch, home):
    verdict_is(monkeypatch, Verdict("tcg", "it hung", 2.5, cached=True))
    speed, safety = qemu_doctor.acceleration(no_kernel)
    assert speed.status is safety.status is Status.WARNING
    assert "tcg: it hung (known from an earlier test)" in speed.detail
    assert "do not consider emulation a security boundary" in safety.detail
    assert "-sandbox on" in safety.detail


def test_images(monkeypatch, home):
    assert checks.images().exit_code is ExitCode.IMAGE_MISSING
    assert checks.images().status is Status.FAILED
    names = ImageStore().root / "names"
    names.mkdir(parents=True)
    (names / "sci").write_text("no digest")
    damaged = checks.images()
    assert damaged.status is Status.FAILED
    assert damaged.exit_code is ExitCode.IMAGE_DAMAGED
    assert "sci" in damaged.detail


def test_image_tools(programs, home):
    check = checks.build_tools()
    assert check.status is Status.WARNING
    assert "mmdebstrap" in check.detail
    assert "mmdebstrap" in check.remedy


@pytest.mark.parametrize(
    ("free", "status"),
    [(1 << 40, Status.OK), (1 << 30, Status.WARNING), (1 << 20, Status.FAILED)],
)
def test_space(monkeypatch, home, free, status):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free})())
    check = checks.run_space()
    assert check.status is status
    assert str(paths.runs_directory()) in check.detail
    assert not home.exists()


def test_a_place_that_cannot_be_written_to(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "file/home"))
    check = checks.image_space()
    assert check.status is Status.FAILED
    assert "cannot be written" in check.detail
    assert "BOINCVM_HOME" in check.remedy


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("MemTotal: 9 kB\nMemAvailable:    8000000 kB\n", Status.OK),
        ("MemAvailable:     100000 kB\n", Status.WARNING),
        ("nothing\n", Status.WARNING),
    ],
)
def test_memory(monkeypatch, tmp_path, text, status):
    table = tmp_path / "meminfo"
    table.write_text(text)
    monkeypatch.setattr(resources_posix, "_MEMORY_TABLE", table)
    assert checks.memory().status is status


def test_every_check_of_this_host_gives_findings(monkeypatch, home):
    verdict_is(monkeypatch, Verdict("tcg", "not tried", 0.0))
    for name, poll in chain(*checks.groups()):
        findings = checks.examine(name, poll)
        assert findings or name in ("uml", "virtualbox", "vmware")  # of use only where they are
        assert all(finding.name and finding.detail for finding in findings)
    assert not Path(home).exists()


@pytest.mark.parametrize(
    ("script", "status", "detail"),
    [
        ("echo 6.1.176", Status.OK, "version 6.1.176"),
        ("echo setting up uid map: Permission denied; exit 1", Status.WARNING, "uid map"),
    ],
)
def test_user_mode_linux(monkeypatch, tmp_path, programs, script, status, detail):
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))  # where no kernel was built
    assert uml_doctor.program(no_kernel) == []
    programs("linux.uml", "exit 1")
    for name in ("prlimit", "setpriv"):
        programs(name, 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    (missing,) = uml_doctor.program(no_kernel)
    assert "bwrap is not installed" in missing.detail
    assert "bubblewrap" in missing.remedy
    programs("bwrap", script)
    (check,) = uml_doctor.program(no_kernel)
    assert check.status is status
    assert detail in check.detail
    assert ("boincvm image kernel build --uml" in check.remedy) == (status is Status.OK)


@pytest.mark.parametrize(
    ("version", "remedy", "has_network"),
    [("7.1.9", "for machines with a network, install QEMU 7.2 or newer", False), ("7.2", "", True)],
)
def test_the_network_of_user_mode_linux(
    monkeypatch, tmp_path, programs, version, remedy, has_network
):
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    for name in ("prlimit", "setpriv"):
        programs(name, 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    programs("bwrap", "echo 7.3.4")
    programs("qemu-system-x86_64", f"echo QEMU emulator version {version}")
    guest_kernel("uml").parent.mkdir(parents=True, mode=0o700)
    guest_kernel("uml").write_text("boincvm: cable")  # what tells our network card
    verdict = find_driver("uml").assess(no_kernel)
    assert verdict.remedy == remedy
    assert (Ability.NETWORK in verdict.abilities.of_machines) is has_network


def test_a_job_can_run_if_one_driver_is_fit(monkeypatch, capsys, drivers):
    no_qemu = Check("qemu", Status.FAILED, "no qemu", "get it", ExitCode.HYPERVISOR_MISSING)
    looks = checks.Groups((), (("qemu", lambda: no_qemu),), (("one", lambda: FINE),))
    monkeypatch.setattr(checks, "groups", lambda: looks)
    drivers.update(qemu=unusable("no qemu", "get it"), uml=GOOD)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "✗ qemu  no qemu" in out
    assert "\n1 uml " in out
    assert "\n- qemu  no qemu\n        -> get it\n" in out
    assert out.endswith("\na job can run here\n")
    drivers["uml"] = GOOD._replace(isolation=Isolation.NONE)
    assert main(["doctor"]) == ExitCode.HYPERVISOR_MISSING
    assert capsys.readouterr().out.endswith("\na job cannot run here yet\n")


def test_the_ranking_for_programs(found, capsys, drivers):
    found(FINE)
    drivers["qemu"] = GOOD._replace(abilities=Abilities(frozenset((Ability.CHECKPOINT,))))
    drivers["uml"] = GOOD._replace(speed=Speed.NATIVE)
    assert main(["doctor", "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert [one["driver"] for one in reported["ranking"]["wanted"]] == ["qemu", "uml"]
    assert [one["driver"] for one in reported["ranking"]["none"]] == ["uml", "qemu"]
    assert reported["ranking"]["wanted"][0]["is_fit"] is True
    assert reported["drivers"]["uml"]["speed"] == "native"
    assert reported["drivers"]["qemu"]["abilities"] == ["checkpoint"]
    assert main(["doctor"]) == 0
    assert "for a job without checkpoints: uml, qemu\n" in capsys.readouterr().out


def test_somebody_elses_broken_driver_is_one_finding(monkeypatch, capsys):
    def find_driver(name):
        if name == "theirs":
            raise BrokenDriverError("the driver theirs cannot be used: it is old", hint="renew it")
        return type("Package", (), {"checks": (("qemu", lambda find_kernel: [FINE]),)})

    monkeypatch.setattr(checks, "driver_names", lambda: ["qemu", "theirs"])
    monkeypatch.setattr(checks, "find_driver", find_driver)
    looks = checks.groups()._replace(before=(), after=())
    monkeypatch.setattr(checks, "groups", lambda: looks)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "✓ one     all is well" in out
    assert "✗ theirs  the driver theirs cannot be used: it is old" in out


@pytest.mark.parametrize(
    ("loaded", "status", "detail"),
    [
        ((), Status.OK, "nothing else"),
        (("kvm_intel",), Status.OK, "nothing else"),
        (("vboxdrv",), Status.OK, "VirtualBox (vboxdrv) is loaded"),
        (("vmmon", "kvm_amd"), Status.WARNING, "VMware (vmmon) is loaded, beside KVM"),
    ],
)
def test_other_hypervisors(monkeypatch, loaded, status, detail):
    monkeypatch.setattr(checks, "loaded_modules", lambda: frozenset(loaded))
    monkeypatch.setattr(checks, "describe_nesting", lambda: "")
    check = checks.virtualization()
    assert check.status is status
    assert detail in check.detail
    assert bool(check.remedy) is (status is Status.WARNING)


def test_preferences(home):
    assert checks.preferences().detail.startswith("none (")
    (home / "configuration").mkdir(parents=True, mode=0o700)
    (home / "configuration/preferences.toml").write_text("machines = 3\n")
    assert checks.preferences().detail.startswith("machines = 3 (")
    (home / "configuration/preferences.toml").write_text("machines = 0\n")
    (check,) = checks.examine("preferences", checks.preferences)
    assert check.status is Status.FAILED
    assert check.remedy == "correct the file, or remove it"
