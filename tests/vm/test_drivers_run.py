"""One command line on each driver: a number goes in, the same factors come out.

GMP-ECM is a real program of an image's, never written for this. It runs on the real hypervisor.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from benchmarks import libvirt_daemon

from support.images import ready_image
from support.virtualbox.fixture import use_virtualbox

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

Prepare = Callable[[pytest.FixtureRequest, pytest.MonkeyPatch], AbstractContextManager[None]]


def _nothing(_request: pytest.FixtureRequest, _patch: pytest.MonkeyPatch) -> nullcontext[None]:
    return nullcontext()


def _kernel(request: pytest.FixtureRequest, _: pytest.MonkeyPatch) -> nullcontext[None]:
    request.getfixturevalue("uml_kernel")
    return nullcontext()


@contextmanager
def _daemon(_: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> Iterator[None]:
    with libvirt_daemon.running() as daemon:
        patch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
        yield


def _package(_: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> nullcontext[None]:
    use_virtualbox(patch)
    return nullcontext()


DRIVERS: dict[str, Prepare] = {
    "qemu": _nothing,
    "uml": _kernel,
    "libvirt": _daemon,
    "virtualbox": _package,
}
"""What each driver needs to be there."""
BOOTS_FOR_MINUTES = ("virtualbox",)


@pytest.fixture(scope="module")
def science_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    ready_image(tmp_path_factory, "sci", packages=["gmp-ecm"])


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.first) if name in BOOTS_FOR_MINUTES else name
        for name in DRIVERS
    ]
)
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with DRIVERS[request.param](request, monkeypatch):
        yield request.param


@pytest.mark.timeout(LIMIT + 100)
def test_ecm(driver: str, science_image: None, tmp_path: Path) -> None:
    (tmp_path / "number").write_text(f"{NUMBER}\n")
    done = subprocess.run(
        [BOINCVM, "run", "--driver", driver, "--json", *OPTIONS, "--", "sh", "-c", SCRIPT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    told = json.loads(done.stdout)
    assert told["exit_code"] == 0, told
    factors = (tmp_path / "factors").read_text()
    assert told["stdout"] == factors
    assert math.prod(map(int, factors.split())) == NUMBER
    assert factors == FACTORS
