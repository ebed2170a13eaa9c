"""The VirtualBox driver, with the real VirtualBox (support/virtualbox/root.py)."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from boincvm.errors import (
    HypervisorError,
    UsageError,
)
from boincvm.hypervisor.boot_disc import write_boot_disc
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.registry import find_driver
from boincvm.hypervisor.virtualbox.installation import DEVICE, MODULE_HINT
from boincvm.hypervisor.virtualbox.saving import check_top
from support.driven import LIMIT
from support.virtualbox.fixture import use_virtualbox
from support.virtualbox.golden import WITH_A_BOOT
from support.virtualbox.machines import MakeMachine, reported, services

pytestmark = pytest.mark.timeout(WITH_A_BOOT)


def test_the_boot_disc_starts_the_kernel(base_image: Path, tmp_path: Path) -> None:
    """With QEMU's firmware in place of VirtualBox's, kernel, initrd and arguments arrive
    complete."""
    disc = tmp_path / "disc"
    arguments = 'console=ttyS0 quiet panic=-1 no_timer_check boincvm.shell="uname; poweroff -f"'
    write_boot_disc(disc, base_image / "kernel", base_image / "initrd", arguments)
    disk = f"file={base_image / 'root.qcow2'},format=qcow2,if=virtio,readonly=on"
    done = subprocess.run(
        ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256M", "-nodefaults",
         "-display", "none", "-no-reboot", "-serial", "stdio", "-drive", disk,
         "-cdrom", disc, "-boot", "d"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )  # fmt: skip
    assert "Linux" in done.stdout


async def test_a_machine_is_what_was_asked_for(machine: MakeMachine) -> None:
    one = machine()
    await one.create()
    table = await reported(one)
    assert table["memory"] == "256"
    assert table["VMState"] == "poweroff"
    assert table["nic1"] == "none"
    assert table["vrde"] == "off"
    assert [table[f"uartmode{line}"].split(",")[0] for line in (1, 2, 3)] == ["client"] * 3
    assert table["boot-0-0"].endswith("boot.iso")
    assert table["disks-0-0"].endswith("disk-000000.vdi")
    assert table["disks-1-0"].endswith("transfer-disk.vmdk")


async def test_the_topmost_layer_is_found_without_our_kernel(machine: MakeMachine) -> None:
    """Firmware boots its disk, which is therefore at another controller."""
    one = machine(kernel=None, initrd=None)
    await one.create()
    assert one.home is not None
    assert one._disks is not None
    assert (await reported(one))["boot-0-0"].endswith("disk-000000.vdi")
    await check_top(one.home, one._disks)
    await one.home.manage.run("snapshot", one.home.name, "take", "theirs")
    with pytest.raises(HypervisorError, match="can no longer be saved"):
        await check_top(one.home, one._disks)


async def test_the_layer_is_over_the_image(machine: MakeMachine, base_image: Path) -> None:
    """We write it, and VirtualBox reads it; the image's own file is shared, and unchanged."""
    one = machine(disk_size=20 << 30)
    await one.create()
    before = (base_image / "root.qcow2").stat()
    assert one.home is not None
    output = await one.home.manage.run("list", "--long", "hdds")
    layer = output[output.index("disk-000000.vdi") - 600 :]
    assert "20480 MBytes" in layer
    assert "differencing" in layer
    assert "root.qcow2" in output
    assert (base_image / "root.qcow2").stat() == before


async def test_a_disk_that_is_larger_than_the_image(
    machine: MakeMachine, spec: MachineSpec
) -> None:
    """VirtualBox can read all of it, also beyond the end of the image's disk."""
    one = machine(disk_size=(8 << 30) + (64 << 20))
    await one.create()
    assert one.home is not None
    source, copy = spec.directory / "disk-000000.vdi", spec.directory / "copy.vdi"
    await one.home.manage.run("clonemedium", "disk", str(source), str(copy), "--format", "VDI")
    assert copy.stat().st_size > 64 << 20


async def test_a_network_card_is_there_where_asked_for(machine: MakeMachine) -> None:
    one = machine(network=True)
    assert one.network is not None
    await one.network.connect(connected=False)
    table = await reported(one)
    assert (table["nic1"], table["cableconnected1"]) == ("nat", "off")
    await one.network.connect(connected=True)
    assert (await reported(one))["cableconnected1"] == "on"


async def test_a_disk_that_is_too_small(machine: MakeMachine) -> None:
    with pytest.raises(UsageError, match="less than the image's"):
        await machine(disk_size=1 << 30).create()


async def test_nothing_is_left_of_it(machine: MakeMachine) -> None:
    one = machine()
    await one.create()
    assert one.home is not None
    home = one.home.directory
    sockets = Path("/tmp", f".vbox-{one.home.name}-ipc")
    for _ in range(5):  # alone the service ends in five seconds: for a busy host that is not long
        await one.home.manage.run("list", "vms")
        if sockets.exists() and services(home) != []:
            break
    else:
        pytest.fail("it has no service")
    await one.destroy()
    assert not home.exists()
    assert not sockets.exists()
    assert services(home) == []


async def test_machines_know_nothing_of_each_other(machine: MakeMachine) -> None:
    one, two = machine(), machine(ephemeral=True)
    await one.create()
    await two.create()
    assert one.home is not None
    assert two.home is not None
    names = (await one.home.manage.run("list", "vms"), await two.home.manage.run("list", "vms"))
    assert one.home.name in names[0]
    assert one.home.name not in names[1]


async def test_several_are_made_at_once(machine: MakeMachine) -> None:
    """None takes another one for an orphan."""
    several = [machine(ephemeral=True) for _ in range(3)]
    await asyncio.gather(*(one.create() for one in several))
    for one in several:
        assert (await reported(one))["VMState"] == "poweroff"


async def test_without_the_kernel_module(
    monkeypatch: pytest.MonkeyPatch, machine: MakeMachine
) -> None:
    """With the package's own VBoxHeadless, the error shows the command to type."""
    use_virtualbox(monkeypatch, stock=True)
    one = machine()
    with pytest.raises(HypervisorError) as caught:
        await one.start()
    assert "Kernel driver not installed" in caught.value.message
    assert caught.value.hint == MODULE_HINT
    assert one.process_ids() == ()


def test_what_doctor_says(monkeypatch: pytest.MonkeyPatch) -> None:
    use_virtualbox(monkeypatch)
    package = find_driver("virtualbox")
    verdict = package.assess(lambda: None)
    assert verdict.version.startswith("7.")
    ((name, check),) = package.checks
    (result,) = check(lambda: None)
    assert name == result.name == "virtualbox"
    if not Path(DEVICE).exists():
        assert f"{DEVICE} is not" in result.detail
        assert result.remedy == verdict.remedy == MODULE_HINT
