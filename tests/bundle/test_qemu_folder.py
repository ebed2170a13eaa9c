"""The folder with QEMU for Linux; tests/boinc/test_bare_host.py runs a machine with it."""

import json
from pathlib import Path

import pytest

from boincvm.cli.main import main
from boincvm.image.progress import Progress
from boincvm.project.bundle import build
from support.bundles import LINUX, made_qemu, run_alone

# The first test makes the folders.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def qemu() -> Path:
    return made_qemu()


def test_its_programs_start_where_there_is_nothing_else(qemu: Path) -> None:
    for name in ("qemu-system-x86_64", "qemu-img"):
        done = run_alone(qemu, [f"/app/{name}", "--version"])
        assert " version 7.2." in done.stdout, done.stderr
    firmware = ("-L", "/app/share/qemu")
    machine = ("-machine", "q35", "-accel", "tcg", "-display", "none", "-kernel", "/missing")
    done = run_alone(qemu, ["/app/qemu-system-x86_64", *firmware, *machine])
    # What emulates, a library that it loads by itself, comes before the kernel.
    assert "could not open kernel file '/missing'" in done.stderr
    done = run_alone(qemu, ["/app/qemu-system-x86_64", *firmware, "-sandbox", "on", "-cpu", "help"])
    assert "Available CPUs" in done.stdout, done.stderr


def test_every_part_has_its_licence_and_its_source(qemu: Path) -> None:
    names = {path.name for path in (qemu / "licences").iterdir()}
    assert {"qemu-system-x86.txt", "seabios.txt", "libc6.txt", "GPL-2", "LGPL-2.1"} <= names
    sources = (qemu / "licences/SOURCES.txt").read_text()
    assert "\nqemu=1:7.2+dfsg-7+deb12u18\n" in sources
    assert "\nlibslirp=4.7.0-1\n" in sources


def test_the_command_packs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "made"
    (made / "share").mkdir(parents=True)
    (made / "share/pvh.bin").write_bytes(b"firmware")
    monkeypatch.setattr(build, "build_qemu", lambda *_: made)
    out = tmp_path / "out"
    assert main(["bundle", "--qemu", "--json", str(out)]) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["content"], table["platform"]) == ("qemu", LINUX)
    assert table["archive"] == f"{out}.tar.xz"
    assert table["archive_size"] == (tmp_path / "out.tar.xz").stat().st_size
    assert (out / "share/pvh.bin").read_bytes() == b"firmware"


def test_how_much_is_downloaded_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path))
    tmp_path.chmod(0o700)
    lines: list[str] = []

    def fetch(folder: Path, cache: object, temporary: Path) -> None:
        assert any("27.0 MiB will be downloaded" in line for line in lines), lines

    recipe = build.QEMU_RECIPES[LINUX]._replace(make=fetch)
    monkeypatch.setitem(build.QEMU_RECIPES, LINUX, recipe)
    build.build_qemu(LINUX, None, Progress(lines.append))
    assert lines
