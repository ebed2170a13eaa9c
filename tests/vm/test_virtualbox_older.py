"""VirtualBox 6.1, by a stand-in that accepts its verbs and options, and no others
(support/virtualbox/older.py)."""

import asyncio
import os
from pathlib import Path

import pytest
from benchmarks.free_ports import free_port

from boincvm.errors import HypervisorMissingError
from boincvm.hypervisor.contract import EndCause, MachineState
from boincvm.hypervisor.registry import find_driver
from boincvm.hypervisor.virtualbox import assess
from boincvm.hypervisor.virtualbox.driver import open_driver
from boincvm.hypervisor.virtualbox.vboxmanage import VBoxManage, VirtualBoxError, parse_table
from boincvm.job.model import PortForward
from support.booted import spec_in
from support.driven import LIMIT
from support.virtualbox.fixture import use_virtualbox
from support.virtualbox.older import NO_PACK, virtualbox_6_1

pytestmark = pytest.mark.timeout(200)


def use_6_1(monkeypatch: pytest.MonkeyPatch, directory: Path, **packs: str) -> None:
    real = use_virtualbox(monkeypatch).programs
    monkeypatch.setenv("PATH", str(virtualbox_6_1(directory / "6.1", real, **packs)))


async def test_a_machine_with_the_options_that_it_takes(
    monkeypatch: pytest.MonkeyPatch, base_image: Path, tmp_path: Path
) -> None:
    """It is created with all its devices, begins to boot, is saved, and resumes."""
    use_6_1(monkeypatch, tmp_path)
    forwards = (PortForward(guest=80, host=free_port()),)
    spec = spec_in(tmp_path / "machine", base_image)._replace(network=True, forwards=forwards)
    driver = await open_driver()
    assert driver.version == (6, 1, 50)
    machine = driver.machine(spec)
    resumed = None
    try:
        await machine.create()
        assert machine.network is not None
        await machine.network.connect(connected=False)
        assert machine.home is not None
        run, name = machine.home.manage.run, machine.home.name
        table = parse_table(await run("showvminfo", name, "--machinereadable"))
        assert (table["nic1"], table["nictype1"], table["cableconnected1"]) == (
            "nat", "virtio", "off"
        )  # fmt: skip
        assert table["uartmode3"].startswith("client,")
        assert table["storagecontrollertype1"].lower() == "nvme"
        async with asyncio.timeout(LIMIT):
            (await machine.start()).close()
        await machine.network.connect(connected=True)
        await machine.take_screenshot(tmp_path / "screen.png")
        assert (tmp_path / "screen.png").read_bytes().startswith(b"\x89PNG")
        await machine.checkpoint(1)
        last = await machine.save(2)
        assert (await machine.ended()).cause is EndCause.ASKED
        resumed = driver.restore(spec, last)
        async with asyncio.timeout(LIMIT):
            (await resumed.start()).close()
        assert resumed.state is MachineState.PAUSED
        await resumed.resume()
    finally:
        if resumed is not None:
            await resumed.stop()
        await machine.destroy()


async def test_options_that_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The stand-in refuses names that only newer versions know."""
    use_6_1(monkeypatch, tmp_path)
    run = VBoxManage(dict(os.environ)).run
    for words in (("modifyvm", "x", "--nic-type1", "virtio"), ("controlvm", "x", "shutdown")):
        with pytest.raises(VirtualBoxError, match=r"Unknown option|Invalid parameter"):
            await run(*words)


async def test_without_the_extension_pack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_6_1(monkeypatch, tmp_path, packs=NO_PACK)
    with pytest.raises(HypervisorMissingError, match="no NVMe disks without Oracle's") as caught:
        await open_driver()
    assert "install VirtualBox 7.0 or newer, or the extension pack" in caught.value.hint


@pytest.mark.parametrize("has_pack", [False, True])
def test_what_doctor_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, has_pack: bool
) -> None:
    """Without the pack: why no machine can run; with it: that none was ever tested."""
    use_6_1(monkeypatch, tmp_path, **({} if has_pack else {"packs": NO_PACK}))
    monkeypatch.setattr(assess, "DEVICE", "/dev/null")  # as if the kernel module were loaded
    verdict = find_driver("virtualbox").assess(lambda: None)
    assert verdict.version == "6.1.50"
    if has_pack:
        assert verdict.is_usable
        assert not verdict.is_proved
    else:
        assert "no NVMe disks without Oracle's extension pack" in verdict.trouble
        assert "or the extension pack of this version" in verdict.remedy
