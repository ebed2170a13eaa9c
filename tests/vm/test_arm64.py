"""Machines of an arm64 image, emulated by QEMU, as users start them."""

import json
import shutil
from pathlib import Path

import pytest

from boincvm.boinc.testing import EndKind
from boincvm.errors import UsageError
from boincvm.exit_codes import ExitCode
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.image.pack import pack_image
from boincvm.image.store import ImageStore
from boincvm.machine.start_source import Boot
from support.bench import Bench
from support.driven import answering, shell
from support.save_and_resume import resume, save_twice
from support.slot import Slot

pytestmark = pytest.mark.timeout(300)


@pytest.mark.usefixtures("arm64_image")
def test_a_run_with_files(bench: Bench) -> None:
    (bench.work / "in.txt").write_text("hello\n")
    script = "uname -m >out.txt; cat in.txt >>out.txt; python3 -c 'print(6 * 7)' >>out.txt"
    options = ("--image", "base-arm64", "--input", "in.txt", "--output", "out.txt")
    done = bench.run(*options, "--", "sh", "-c", script)
    assert done.code == 0, done.stderr
    assert (bench.work / "out.txt").read_text() == "aarch64\nhello\n42\n"


@pytest.mark.usefixtures("arm64_image")
def test_a_driver_that_cannot_run_it(bench: Bench) -> None:
    done = bench.run("--driver", "uml", "--image", "base-arm64", "--", "true")
    done.check_error(ExitCode.USAGE, "the driver uml runs no images for aarch64")


@pytest.mark.usefixtures("arm64_image")
def test_without_its_emulator(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only QEMU for x86-64 is installed."""
    usual = shutil.which("qemu-system-x86_64")
    assert usual is not None
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "qemu-system-x86_64").symlink_to(usual)
    monkeypatch.setenv("PATH", str(programs))
    done = bench.run("--image", "base-arm64", "--", "true")
    done.check_error(ExitCode.HYPERVISOR_MISSING, "qemu-system-aarch64 is not installed")
    assert "apt-get install --no-install-recommends qemu-system-arm" in done.stderr


async def test_a_task_whose_app_version_brings_the_image(arm64_image: Path, tmp_path: Path) -> None:
    """It is packed, unpacked by the task, and the driver is chosen by what it is for."""
    assert arm64_image.exists()
    async with Slot(tmp_path) as slot:
        with ImageStore().open("base-arm64") as image:
            pack_image(image, slot.path / "science.tar.gz")
        more = "<image>science.tar.gz</image>"
        slot.machine_job("uname -m; python3 -c 'print(6 * 7)'", more)
        end = await slot.run(XDG_DATA_HOME=str(tmp_path / "no images"))
        assert end.kind is EndKind.FINISHED, slot.stderr
        assert slot.text("out") == "aarch64\n42\n"


def test_it_has_no_screen(spec: MachineSpec) -> None:
    driver = QemuDriver("tcg", architecture=Architecture.AARCH64)
    with pytest.raises(UsageError, match="a machine for aarch64 of the driver qemu has no screen"):
        Boot().make(driver, spec._replace(display=True))


def test_the_image_says_what_it_is_for(arm64_image: Path) -> None:
    manifest = json.loads((arm64_image / "manifest.json").read_text())
    assert manifest["architecture"] == "arm64"
    assert {package["architecture"] for package in manifest["packages"]} <= {"arm64", "all"}
    with ImageStore().open("base-arm64") as image:
        assert image.architecture is Architecture.AARCH64


@pytest.fixture
def spec(arm64_image: Path, tmp_path: Path) -> MachineSpec:
    directory = tmp_path / "machine"
    directory.mkdir(mode=0o700)
    files = (arm64_image / "kernel", arm64_image / "initrd", arm64_image / "root.qcow2")
    shape = MachineSpec(directory, *files, memory=256 << 20, cpus=2)
    return shape._replace(architecture=Architecture.AARCH64)


async def test_a_booted_machine_goes_on_from_its_checkpoints(spec: MachineSpec) -> None:
    """Its state stream contains the page size, unlike that of a copy."""
    driver = QemuDriver("tcg", architecture=Architecture.AARCH64)
    machine = driver.machine(spec)
    try:
        async with answering(machine) as link:
            assert (await shell(link, "uname -m; nproc")).split() == ["aarch64", "2"]
            saved = await save_twice(machine, link)
        kind = saved.checkpoint.machine["type"]
        assert isinstance(kind, str)
        assert kind.startswith("virt-")
        assert all(finding.is_good for finding in driver.examine(saved.checkpoint))
        await resume(driver, spec, saved)
    finally:
        await machine.destroy()
