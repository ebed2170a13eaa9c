"""Machines for tests with real virtual machines."""

import os
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest
from benchmarks import libvirt_daemon

from support.bench import until
from support.controller.home import Home
from support.machine_any import SOURCES, AnyMachine, machine_from


@pytest.fixture(scope="module")
def controller_home(base_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Yield a user whose controller runs, and who has only the machines of `machine_any`."""
    home = Home(tmp_path_factory.mktemp("controller") / "home")
    with home.controller():
        yield home
    until(lambda: not home.processes())  # the kernel may still be ending some


@pytest.fixture(scope="module", params=SOURCES)
def machine_any(request: pytest.FixtureRequest, controller_home: Home) -> Iterator[AnyMachine]:
    """Yield a machine that came up in each way; the module's tests share it, so they leave it
    unchanged."""
    with machine_from(controller_home, request.param) as machine:
        yield machine


@pytest.fixture(params=SOURCES)
def own_machine_any(request: pytest.FixtureRequest, controller_home: Home) -> Iterator[AnyMachine]:
    """Yield a machine that came up in each way; the test may end it."""
    with machine_from(controller_home, request.param) as machine:
        yield machine


@pytest.fixture(scope="module")
def own_libvirt() -> Iterator[None]:
    """Run a libvirt daemon for the module's tests, which all of its commands use."""
    with libvirt_daemon.running() as daemon, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOINCVM_LIBVIRT_URI", daemon.uri)
        yield


@pytest.fixture
def connection(own_libvirt: None) -> Iterator[libvirt.virConnect]:
    """Connect to the module's libvirt daemon, which has no machines left in the end."""
    connection = libvirt.open(os.environ["BOINCVM_LIBVIRT_URI"])
    yield connection
    assert connection.listAllDomains() == []
    connection.close()
