"""Machines that tests of real virtual machines share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.controller.home import Home
from support.machine_any import SOURCES, AnyMachine, machine_from


@pytest.fixture(scope="module")
def controller_home(base_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A user whose controller runs, and who has no machines but those of `machine_any`."""
    home = Home(tmp_path_factory.mktemp("controller") / "home")
    with home.controller():
        yield home
    assert home.processes() == []


@pytest.fixture(scope="module", params=SOURCES)
def machine_any(request: pytest.FixtureRequest, controller_home: Home) -> Iterator[AnyMachine]:
    """One that came up in each way; the module's tests share it, so they leave it as it is."""
    with machine_from(controller_home, request.param) as machine:
        yield machine


@pytest.fixture(params=SOURCES)
def own_machine_any(request: pytest.FixtureRequest, controller_home: Home) -> Iterator[AnyMachine]:
    """One that came up in each way; the test may end it."""
    with machine_from(controller_home, request.param) as machine:
        yield machine
