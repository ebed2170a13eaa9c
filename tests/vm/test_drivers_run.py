"""One command line on each driver: a number goes in, the same factors come out.

GMP-ECM is a real, unmodified program in an image. It runs on the real hypervisor, except for
VMware's, where a stand-in runs the machine.
"""

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from benchmarks import libvirt_daemon

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.virtualbox.driver import open_driver
from boincvm.hypervisor.vmware import installation
from support.images import ready_image
from support.virtualbox.fixture import use_virtualbox
from support.virtualbox.golden import WITH_A_BOOT, GoldenMachine, golden_machine
from support.vmware.fixture import vmware_installed

BOINCVM = Path(sys.executable).with_name("boincvm")
LIMIT = 500.0
"""Seconds that a boot and a program may take on a busy host, each instruction interpreted."""
NUMBER = 1234567891011
FACTORS = "7 176366841573\n"
"""What that curve finds."""
SCRIPT = "ecm -q -sigma 0:7 50 <number >factors; cat factors"
OPTIONS = (
    *("--memory", "256M", "--boot-limit", f"{LIMIT:g}", "--silence-limit", f"{LIMIT:g}"),
    *("--image", "sci", "--input", "number", "--output", "factors"),
)

Command = tuple[str, ...]
USUAL: Command = (str(BOINCVM),)
ELSEWHERE = """
import sys
from pathlib import Path
from boincvm.cli.main import main
from boincvm.hypervisor.vmware import installation
installation.DEVICE = Path(sys.argv.pop(1))
sys.exit(main(sys.argv[1:]))
"""
"""boincvm where another file stands for the device of VMware's kernel module."""
Prepare = Callable[[pytest.FixtureRequest, pytest.MonkeyPatch], AbstractContextManager[Command]]


def _nothing(_request: pytest.FixtureRequest, _patch: pytest.MonkeyPatch) -> nullcontext[Command]:
    return nullcontext(USUAL)


def _kernel(request: pytest.FixtureRequest, _: pytest.MonkeyPatch) -> nullcontext[Command]:
    request.getfixturevalue("uml_kernel")
    return nullcontext(USUAL)


@contextmanager
def _daemon(_: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Iterator[Command]:
    with libvirt_daemon.running() as daemon:
        patch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
        yield USUAL


def _package(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> nullcontext[Command]:
    """It starts a copy: a boot takes a minute or two."""
    use_virtualbox(patch)
    image: Path = request.getfixturevalue("science_image")
    directory: Path = request.getfixturevalue("tmp_path") / "golden"
    directory.mkdir()
    files = (image / "kernel", image / "initrd", image / "root.qcow2")
    spec = MachineSpec(directory, *files, memory=256 << 20, cpus=1)

    async def snapshot() -> GoldenMachine:
        return await golden_machine(await open_driver(), spec, "sci", balloon=False)

    patch.setenv("XDG_DATA_HOME", str(asyncio.run(snapshot()).data_directory))
    return nullcontext(USUAL)


@contextmanager
def _stand_in(_request: pytest.FixtureRequest, _patch: pytest.MonkeyPatch) -> Iterator[Command]:
    with vmware_installed():
        yield (sys.executable, "-P", "-c", ELSEWHERE, str(installation.DEVICE))


DRIVERS: dict[str, Prepare] = {
    "qemu": _nothing,
    "uml": _kernel,
    "libvirt": _daemon,
    "virtualbox": _package,
    "vmware": _stand_in,
}
"""What each driver needs to be there: VMware is a stand-in (support/vmware)."""
BOOTS_FOR_MINUTES = ("virtualbox",)


@pytest.fixture(scope="module")
def science_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ready_image(tmp_path_factory, "sci", packages=["gmp-ecm"])


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.first) if name in BOOTS_FOR_MINUTES else name
        for name in DRIVERS
    ]
)
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Return `boincvm run --driver` with the name of a driver that is available."""
    with DRIVERS[request.param](request, monkeypatch) as boincvm:
        yield (*boincvm, "run", "--driver", request.param)


@pytest.mark.timeout(LIMIT + WITH_A_BOOT)
def test_ecm(command: Command, science_image: Path, tmp_path: Path) -> None:
    (tmp_path / "number").write_text(f"{NUMBER}\n")
    done = subprocess.run(
        [*command, "--json", *OPTIONS, "--", "sh", "-c", SCRIPT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    reported = json.loads(done.stdout)
    assert reported["exit_code"] == 0, reported
    factors = (tmp_path / "factors").read_text()
    assert reported["stdout"] == factors
    assert math.prod(map(int, factors.split())) == NUMBER
    assert factors == FACTORS
