"""Machines of the real VirtualBox, for all of its tests."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.virtualbox.driver import VirtualBoxDriver, open_driver
from boincvm.hypervisor.virtualbox.machine import VirtualBoxMachine
from support.booted import spec_in
from support.virtualbox.fixture import use_virtualbox
from support.virtualbox.golden import GoldenMachine, golden_machine
from support.virtualbox.machines import MakeMachine
from support.virtualbox.pack import with_extension_pack


@pytest.fixture
async def driver(monkeypatch: pytest.MonkeyPatch) -> VirtualBoxDriver:
    use_virtualbox(monkeypatch)
    return await open_driver()


@pytest.fixture
def spec(base_image: Path, tmp_path: Path) -> MachineSpec:
    return spec_in(tmp_path / "a machine & its <place>", base_image)


@pytest.fixture
async def machine(driver: VirtualBoxDriver, spec: MachineSpec) -> AsyncIterator[MakeMachine]:
    """Make machines that are destroyed after the test, and leave nothing."""
    async with AsyncExitStack() as stack:
        made = []

        def make(**changes: object) -> VirtualBoxMachine:
            one = driver.machine(spec._replace(**changes))
            stack.push_async_callback(one.destroy)
            made.append(one)
            return one

        yield make
    assert not spec.directory.exists() or list(spec.directory.iterdir()) == []
    for one in made:
        assert one.home is None


@pytest.fixture
async def golden(driver: VirtualBoxDriver, spec: MachineSpec) -> GoldenMachine:
    """Return a booted machine, of which a test starts copies."""
    return await golden_machine(driver, spec)


@pytest.fixture
async def copy(
    driver: VirtualBoxDriver, golden: GoldenMachine, spec: MachineSpec
) -> AsyncIterator[VirtualBoxMachine]:
    machine = golden.clone(driver, spec)
    yield machine
    await machine.destroy()
    assert not spec.directory.exists() or list(spec.directory.iterdir()) == []


@pytest.fixture
def extension_pack(
    driver: VirtualBoxDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Have a stand-in for Oracle's extension pack."""
    real = use_virtualbox(monkeypatch).programs
    monkeypatch.setenv("PATH", with_extension_pack(tmp_path / "pack", real))
