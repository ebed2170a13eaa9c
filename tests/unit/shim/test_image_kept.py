"""The image beneath a machine's disk is kept for it, whatever becomes of its name."""

import asyncio
import shutil
from pathlib import Path

import pytest

from boincvm.bus.broker_address import BrokerAddress
from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.fake.driver import FakeDriver
from boincvm.image.store import ImageStore
from boincvm.node.commands import NodeCommands
from boincvm.shim import machine as shim_machine
from boincvm.shim.machine import ShimMachine
from boincvm.shim.machine_directory import Definition, MachineDirectory
from support.controller.lossy import FakeProgram
from support.packed_images import publish

pytestmark = pytest.mark.timeout(60)
DEFINITION = Definition("a", "base", 1 << 28, 1, None, False, False, {}, 1.0)


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MachineDirectory:
    """Return the directory of a machine that has never run; drivers are fake."""
    monkeypatch.setenv("BOINCVM_HOME", str(tmp_path / "home"))
    nowhere = tmp_path / "none"

    def spec(_shape: object, _image: object, directory: Path) -> MachineSpec:
        return MachineSpec(directory, nowhere, nowhere, nowhere, memory=1 << 28, cpus=1)

    async def driver(*_: object) -> FakeDriver:
        return FakeDriver()

    monkeypatch.setattr(shim_machine, "machine_spec", spec)
    monkeypatch.setattr(shim_machine, "open_driver", driver)
    made = MachineDirectory(tmp_path / "home/data/controller/machines/a")
    made.make(DEFINITION, BrokerAddress("a", "x", path="/nowhere"))
    return made


async def live_once(location: MachineDirectory) -> None:
    """Start the machine and end it."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        machine = ShimMachine(location, DEFINITION, lambda: None)
        machine.prepare(NodeCommands("life", FakeProgram, lambda _: None, group), goes_on=False)
        try:
            await machine.begin(None)
            await machine.power_off()
        finally:
            await machine.close()


async def test_it_starts_again_with_what_the_image_was(location: MachineDirectory) -> None:
    store = ImageStore()
    old = publish(store, content=b"old")
    await live_once(location)
    assert store.owners() == {old: ["a"]}
    publish(store, content=b"new")
    await live_once(location)
    assert store.remove("base") == []
    await live_once(location)
    assert location.status().image == old


async def test_content_that_somebody_has_removed(location: MachineDirectory) -> None:
    store = ImageStore()
    publish(store, content=b"old")
    await live_once(location)
    shutil.rmtree(store.root / "references")
    publish(store, content=b"new")
    with pytest.raises(ExceptionGroup) as raised:
        await live_once(location)
    (error,) = raised.value.exceptions
    assert isinstance(error, HypervisorError)
    assert error.message == "the image base has changed since the machine's disk was made"
