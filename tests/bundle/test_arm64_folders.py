"""The folders for volunteers with Linux on AArch64, under emulation of user programs."""

import subprocess
from pathlib import Path

import pytest

from boincvm import __version__
from boincvm.project.bundle.linux import python_command
from support.arm64 import EMULATED, EMULATOR, linked_with, needs_own_formats
from support.bundles import ARM64, made_folder, made_qemu, run_alone

MODULES = """\
import importlib, pkgutil, sys, boincvm
others = ("boincvm.controller.", "boincvm.hypervisor.libvirt.", "boincvm._")
for module in pkgutil.walk_packages(boincvm.__path__, "boincvm."):
    is_here = not module.name.endswith(("_windows", "_macos"))
    if is_here and not module.name.startswith(others):
        importlib.import_module(module.name)
print(len(sys.modules))
"""
"""Imports all of boincvm but what needs packages that no folder has."""
ABSENT = {"libuuid.so.1"}
"""Of a part of Python that it does without."""
LEAST_MODULES = 500

# The first test makes the folders.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def folder() -> Path:
    return made_folder(ARM64)


@pytest.fixture(scope="module")
def qemu() -> Path:
    return made_qemu(ARM64)


def test_all_programs_and_libraries_are_of_aarch64_and_complete(folder: Path, qemu: Path) -> None:
    for top in (folder, qemu):
        names = {path.name for path in top.rglob("*")} | {"ld-linux-aarch64.so.1"}
        programs = [path for path in top.rglob("*") if path.is_file() and is_elf(path)]
        assert programs
        for program in programs:
            machine, needed = linked_with(program)
            assert machine == "AArch64", program
            assert needed <= names | ABSENT, program


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def test_its_python_runs(folder: Path) -> None:
    code = "import sys; from boincvm.cli.boinc_wrapper import main; sys.exit(main())"
    command = [EMULATOR, *python_command(folder), "-I", "-S", "-B", "-c", code, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"boincvm-wrapper {__version__}\n", "")


@needs_own_formats
def test_its_programs_start_where_there_is_nothing_else(folder: Path, qemu: Path) -> None:
    version = run_alone(folder, ["/app/boincvm-wrapper", "--version"], within=EMULATED)
    assert (version.stdout, version.stderr) == (f"boincvm-wrapper {__version__}\n", "")
    imported = run_alone(folder, ["/app/python", "-c", MODULES], within=EMULATED)
    assert imported.returncode == 0, imported.stderr
    assert int(imported.stdout) > LEAST_MODULES
    for name in ("qemu-system-aarch64", "qemu-img"):
        done = run_alone(qemu, [f"/app/{name}", "--version"], within=EMULATED)
        assert " version 7.2." in done.stdout, done.stderr
    machine = ("-machine", "virt", "-nodefaults", "-display", "none", "-kernel", "/missing")
    firmware = ("-L", "/app/share/qemu")
    done = run_alone(qemu, ["/app/qemu-system-aarch64", *firmware, *machine], within=EMULATED)
    assert "could not load kernel '/missing'" in done.stderr


def test_its_licences_and_sources_are_those_of_its_parts(folder: Path, qemu: Path) -> None:
    sources = (folder / "licences/SOURCES.txt").read_text()
    assert "_arm64.deb" in sources
    assert "_amd64.deb" not in sources
    names = {path.name for path in (qemu / "licences").iterdir()}
    assert {"qemu-system-arm.txt", "libc6.txt", "GPL-2"} <= names
    assert not {"qemu-system-x86.txt", "seabios.txt"} & names
