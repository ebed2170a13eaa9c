"""Which graphics card of the host a machine may have, in a stand-in for sysfs and /dev/vfio.

No computer of ours has a card that could be given away.
"""

import os
import resource
from pathlib import Path

import pytest

from boincvm.errors import HostError
from boincvm.host import passthrough_linux as passthrough

CARD, SOUND = "0000:01:00.0", "0000:01:00.1"
MEMORY = 1 << 30
PLENTY = 1 << 40


class StandInForSysfs:
    """The kernel's files on PCI devices, as in a host with a card that is ready for a machine."""

    def __init__(self, root: Path) -> None:
        self.devices, self.vfio, self.status = root / "devices", root / "vfio", root / "status"
        self.group = root / "iommu_groups" / "7"
        (self.group / "devices").mkdir(parents=True)
        self.vfio.mkdir()
        for name in ("vfio", "7"):
            (self.vfio / name).touch()
        self.status.write_text("Name:\tpython3\nCapEff:\t0000000000000000\n")
        self.add(CARD, "030000", "vfio-pci")
        self.add(SOUND, "040300", "vfio-pci")
        self.limits = (PLENTY, PLENTY)

    def add(self, address: str, kind: str, driver: str) -> None:
        device = self.devices / address
        device.mkdir(parents=True)
        (device / "class").write_text(f"0x{kind}\n")
        (device / "iommu_group").symlink_to(self.group)
        (self.group / "devices" / address).symlink_to(device)
        self.bind(address, driver)

    def bind(self, address: str, driver: str) -> None:
        """Give a device a driver, or none if `driver` is empty."""
        link = self.devices / address / "driver"
        link.unlink(missing_ok=True)
        if driver:
            link.symlink_to(f"../../../bus/pci/drivers/{driver}")


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInForSysfs:
    tree = StandInForSysfs(tmp_path)
    monkeypatch.setattr(passthrough, "_DEVICES", tree.devices)
    monkeypatch.setattr(passthrough, "_VFIO", tree.vfio)
    monkeypatch.setattr(passthrough, "_STATUS", tree.status)

    def set_limits(_: int, limits: tuple[int, int]) -> None:
        tree.limits = limits

    monkeypatch.setattr(resource, "getrlimit", lambda _: tree.limits)
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    return tree


def refusal(address: str = CARD, memory: int = MEMORY) -> HostError:
    with pytest.raises(HostError) as caught:
        passthrough.prepare_passthrough(address, memory)
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint
    return caught.value


@pytest.mark.parametrize("driver", ["", "pcieport", "pci-stub", "vfio-pci"])
@pytest.mark.parametrize("kind", ["030000", "030200", "0b4000", "120000"])
def test_a_card_that_is_ready(sysfs: StandInForSysfs, kind: str, driver: str) -> None:
    (sysfs.devices / CARD / "class").write_text(f"0x{kind}\n")
    sysfs.bind(SOUND, driver)
    passthrough.prepare_passthrough(CARD, MEMORY)


def test_no_such_device(sysfs: StandInForSysfs) -> None:
    error = refusal("0000:02:00.0")
    assert error.message == "this host has no PCI device 0000:02:00.0"


@pytest.mark.parametrize("kind", ["020000", "010802", "040300", "0b3000"])
def test_a_device_that_is_no_card(sysfs: StandInForSysfs, kind: str) -> None:
    (sysfs.devices / CARD / "class").write_text(f"0x{kind}\n")
    assert f"is no graphics card: its class is {kind}" in refusal().message


def test_a_host_without_an_iommu(sysfs: StandInForSysfs) -> None:
    (sysfs.devices / CARD / "iommu_group").unlink()
    error = refusal()
    assert "no IOMMU is in use here" in error.message
    assert "intel_iommu=on" in error.hint


@pytest.mark.parametrize(("driver", "has"), [("nouveau", "driver nouveau"), ("", "has no driver")])
def test_a_card_that_the_host_uses(sysfs: StandInForSysfs, driver: str, has: str) -> None:
    sysfs.bind(CARD, driver)
    error = refusal()
    assert has in error.message
    assert f"driverctl set-override {CARD} vfio-pci" in error.hint


def test_a_device_of_its_group_that_the_host_uses(sysfs: StandInForSysfs) -> None:
    sysfs.bind(SOUND, "snd_hda_intel")
    error = refusal()
    assert f"the device {SOUND} is in the IOMMU group 7 of {CARD}" in error.message
    assert f"driverctl set-override {SOUND} vfio-pci" in error.hint


@pytest.mark.parametrize("name", ["vfio", "7"])
def test_a_host_whose_kernel_offers_no_vfio(sysfs: StandInForSysfs, name: str) -> None:
    (sysfs.vfio / name).unlink()
    assert f"there is no {sysfs.vfio / name}" in refusal().message


def test_a_user_who_may_not_open_the_group(
    sysfs: StandInForSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "7")  # root may open all
    error = refusal()
    assert f"this user may not open {sysfs.vfio / '7'}" in error.message
    assert "chown" in error.hint


def test_a_user_who_may_not_lock_so_much_memory(sysfs: StandInForSysfs) -> None:
    sysfs.limits = (8 << 20, MEMORY - 1)
    error = refusal()
    assert "all its 1.0 GiB of memory locked" in error.message
    assert f"memlock {2 << 20};" in error.hint  # KiB


@pytest.mark.parametrize("most", [MEMORY, PLENTY, resource.RLIM_INFINITY])
def test_the_limit_of_locked_memory_is_raised(sysfs: StandInForSysfs, most: int) -> None:
    sysfs.limits = (8 << 20, most)
    passthrough.prepare_passthrough(CARD, MEMORY)
    assert sysfs.limits == (most, most)


def test_root_has_no_such_limit(sysfs: StandInForSysfs) -> None:
    sysfs.status.write_text("CapEff:\t000001ffffffffff\n")
    sysfs.limits = (0, 0)
    passthrough.prepare_passthrough(CARD, MEMORY)


def test_a_device_that_goes_meanwhile(sysfs: StandInForSysfs) -> None:
    (sysfs.devices / CARD / "class").unlink()
    with pytest.raises(HostError, match=r"cannot be given to a machine: No such file"):
        passthrough.prepare_passthrough(CARD, MEMORY)
