"""`boincvm doctor`: one finding a line, and an exit code that scripts can use."""

import io
import json
import sys
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
from boincvm.hypervisor.uml import doctor as uml_doctor
from boincvm.image.store import ImageStore

FINE = Check("one", Status.OK, "all is well")
SO_SO = Check("twenty", Status.WARNING, "so so", "do this")
BROKEN = Check("three", Status.FAILED, "broken", "do that", ExitCode.IMAGE_MISSING)


@pytest.fixture
def found(monkeypatch):
    def install(*findings):
        looks = tuple((check.name, lambda check=check: check) for check in findings)
        monkeypatch.setattr(checks, "look_ups", lambda: looks)

    return install


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """A PATH with nothing in it but what the test writes."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))

    def write(name, script):
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)

    return write


def no_kernel():
    """There is no image here."""


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
    told = json.loads(capsys.readouterr().out)
    assert told["can_run_jobs"] is False
    assert told["checks"][1] == {
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

    monkeypatch.setattr(checks, "look_ups", lambda: (("a", breaks), ("b", breaks_too)))
    assert main(["doctor"]) == ExitCode.HYPERVISOR_MISSING
    out = capsys.readouterr().out
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
    for look in (qemu_doctor.program, qemu_doctor.image_tool, qemu_doctor.sandbox):
        (finding,) = look(no_kernel)
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
    assert "no security boundary" in safety.detail
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
    for name, look in checks.look_ups():
        findings = checks.examine(name, look)
        assert findings or name in ("user-mode linux", "virtualbox")  # of use only where they are
        assert all(finding.name and finding.detail for finding in findings)
    assert not Path(home).exists()


@pytest.mark.parametrize(
    ("script", "status", "detail"),
    [
        ("echo 6.1.176", Status.OK, "version 6.1.176"),
        (
            "echo unshare failed: Operation not permitted; exit 1",
            Status.WARNING,
            "not permitted",
        ),
    ],
)
def test_user_mode_linux(programs, script, status, detail):
    assert uml_doctor.program(no_kernel) == []
    programs("linux.uml", "exit 1")
    (missing,) = uml_doctor.program(no_kernel)
    assert "unshare is not installed" in missing.detail
    programs("unshare", script)
    (check,) = uml_doctor.program(no_kernel)
    assert check.status is status
    assert detail in check.detail
