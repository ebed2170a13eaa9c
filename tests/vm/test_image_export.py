"""Exported images: a disk that a computer's firmware boots, and an appliance for the real
VirtualBox."""

import subprocess
from pathlib import Path

import pytest

from boincvm.hypervisor.virtualbox.home import Home
from boincvm.hypervisor.virtualbox.vboxmanage import parse_table
from boincvm.image.export import export_image
from boincvm.image.import_disk import import_disk
from boincvm.image.store import ImageStore
from support.driven import LIMIT
from support.small_images import publish_small
from support.virtualbox.fixture import use_virtualbox

pytestmark = pytest.mark.timeout(200)


@pytest.mark.usefixtures("base_image")
def test_firmware_boots_an_exported_disk(tmp_path: Path) -> None:
    """It runs the command, with the whole image as its root, and powers off."""
    disk = tmp_path / "disk.vdi"
    with ImageStore().open("base") as image:
        export_image(image, disk, "vdi", command="echo I am $(uname) >/seen; sync; cat /seen")
    done = subprocess.run(
        ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256M", "-nodefaults",
         "-display", "none", "-no-reboot", "-serial", "stdio",
         "-drive", f"file={disk},format=vdi,if=virtio"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )  # fmt: skip
    assert "I am Linux" in done.stdout


async def test_virtualbox_imports_an_appliance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What VirtualBox exports again is the same image."""
    use_virtualbox(monkeypatch)
    store, path = ImageStore(tmp_path / "store"), tmp_path / "small.ova"
    publish_small(store, "a-name")
    with store.open("a-name") as image:
        export_image(image, path, "ova")
    home = Home.make()
    try:
        home.write_registry([], [])
        await home.manage.run("import", str(path))
        table = parse_table(await home.manage.run("showvminfo", "a-name", "--machinereadable"))
        again = tmp_path / "again.ova"
        await home.manage.run("export", "a-name", "-o", str(again), "--options", "iso")
    finally:
        await home.remove()
    machine = home.machine_directory / "a-name"
    assert table["boot-0-0"] == str(machine / "boot.iso")
    assert table["disks-0-0"] == str(machine / "disk.vmdk")
    assert table["storagecontrollertype1"] == "NVMe"
    assert (table["memory"], table["boot1"], table["nic1"]) == ("512", "dvd", "none")
    assert (table["uart1"], table["uartmode1"]) == ("0x03f8,4", "disconnected")
    imported = import_disk(again, "ova", "again", store)
    assert imported.digest == store.digest_of("a-name")
