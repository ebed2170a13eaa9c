"""Which drivers the conformance suite runs over.

Those of boincvm; or those that BOINCVM_TEST_DRIVERS names, with commas between: whoever writes a
driver installs it, with its entry point, and runs `BOINCVM_TEST_DRIVERS=NAME pytest
tests/hypervisor`. What a driver cannot do, by its own word, is skipped (docs/drivers.md).
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from boincvm.hypervisor.contract import Driver, DriverPackage, Machine, MachineSpec
from boincvm.hypervisor.registry import BUILT_IN, find_driver, open_driver
from support.driven import add_programs, runs_linux

DRIVERS = [name for name in os.environ.get("BOINCVM_TEST_DRIVERS", "").split(",") if name]
_OF_ITS_OWN = "virtualbox"
"""Boots take a minute in its interpreter, so it has tests of its own (tests/vm/test_virtualbox.py)
"""


@pytest.fixture(params=DRIVERS or [name for name in BUILT_IN if name != _OF_ITS_OWN])
def package(request: pytest.FixtureRequest) -> DriverPackage:
    return find_driver(request.param)


@pytest.fixture
async def driver(package: DriverPackage, kernel: Path) -> Driver:
    driver = await open_driver(package.name, kernel)
    add_programs(driver)
    return driver


@pytest.fixture
def linux(driver: Driver) -> Driver:
    """A driver whose guests are the image's Linux."""
    if not runs_linux(driver):
        pytest.skip("its guests are no Linux")
    return driver


@pytest.fixture
def spec_in(base_image: Path, tmp_path: Path) -> Callable[[str], MachineSpec]:
    """A small machine whose files lie in a new directory of that name."""

    def make(name: str) -> MachineSpec:
        directory = tmp_path / name
        directory.mkdir(mode=0o700)
        files = (base_image / "kernel", base_image / "initrd", base_image / "root.qcow2")
        return MachineSpec(directory, *files, memory=256 << 20, cpus=1)

    return make


@pytest.fixture
def spec(spec_in: Callable[[str], MachineSpec]) -> MachineSpec:
    return spec_in("a machine, its place: odd=yes")


@pytest.fixture
async def made() -> AsyncIterator[Callable[[Machine], Machine]]:
    """Machines that are destroyed after the test, whatever comes."""
    async with AsyncExitStack() as stack:

        def keep(machine: Machine) -> Machine:
            stack.push_async_callback(machine.destroy)
            return machine

        yield keep
