"""PCI devices for virtual machines on Linux, by VFIO; import it through `passthrough`.

The kernel gives a device to a user's program only if all devices of its IOMMU group are free, or
bound to vfio-pci: within a group they could reach each other's memory
(Documentation/driver-api/vfio.rst).
"""

import os
import resource
import sys
from pathlib import Path

from boincvm.errors import HostError, host_error
from boincvm.sizes import format_size

assert sys.platform != "win32"

HAS_PASSTHROUGH = True
"""Whether the system can hand devices to a virtual machine."""
_DEVICES = Path("/sys/bus/pci/devices")
_VFIO = Path("/dev/vfio")
_STATUS = Path("/proc/self/status")
_DRIVER = "vfio-pci"
_HARMLESS = (_DRIVER, "pci-stub", "pcieport")
"""Drivers of the group's other devices that let the kernel hand out the group."""
_GRAPHICS = (0x03, 0x12)
"""Classes of PCI devices: display controllers, and processing accelerators."""
_COPROCESSOR = 0x0B40
_IPC_LOCK = 1 << 14
"""The capability to lock memory without a limit (capabilities(7))."""
_SPARE = 1 << 30
"""Bytes of locked memory that libvirt adds to that of a machine, for what the device maps."""
_PAGE = "boincvm help images explains how a graphics card is prepared"


def prepare_passthrough(address: str, memory: int) -> None:
    """Check that a machine with `memory` bytes can have the graphics card at that PCI address.

    All its memory is locked, so this process's limit for that is raised as far as it may be. Raises
    HostError.
    """
    try:
        _prepare(address, memory)
    except OSError as error:
        raise host_error(f"the device {address} cannot be given to a machine", error) from error


def _prepare(address: str, memory: int) -> None:
    device = _DEVICES / address
    if not device.exists():
        raise HostError(f"this host has no PCI device {address}", hint="lspci -D lists the devices")
    _check_class(device)
    group = _link(device / "iommu_group")
    if not group:
        raise HostError(
            f"the device {address} cannot be given to a machine: no IOMMU is in use here",
            hint="turn it on in the firmware (VT-d, AMD-Vi or IOMMU), for Intel also with"
            f" intel_iommu=on on the kernel's command line; {_PAGE}",
        )
    _check_drivers(device, group)
    _check_access(address, group)
    _raise_limit(memory)


def _check_class(device: Path) -> None:
    number = int((device / "class").read_text(), 16)
    if number >> 16 not in _GRAPHICS and number >> 8 != _COPROCESSOR:
        raise HostError(
            f"the device {device.name} is no graphics card: its class is {number:06x}",
            hint="lspci -D lists the devices; those of the classes 03, 0b40 and 12 are possible",
        )


def _link(path: Path) -> str:
    """Return the last name of what a link leads to, or "" if there is none."""
    try:
        return path.readlink().name
    except OSError:
        return ""


def _check_drivers(device: Path, group: str) -> None:
    """Check that the device is bound to vfio-pci, and that no other of its group is in use."""
    driver = _link(device / "driver")
    if driver != _DRIVER:
        owner = f"the host's driver {driver}" if driver else "no driver"
        raise HostError(
            f"the device {device.name} has {owner}, and has to have {_DRIVER}",
            hint=f"as root: driverctl set-override {device.name} {_DRIVER}; {_PAGE}",
        )
    for path in sorted((device / "iommu_group" / "devices").iterdir()):
        other = _link(path / "driver")
        if other and other not in _HARMLESS:
            raise HostError(
                f"the device {path.name} is in the IOMMU group {group} of {device.name}, and the"
                f" host uses it, with the driver {other}",
                hint=f"as root: driverctl set-override {path.name} {_DRIVER}; {_PAGE}",
            )


def _check_access(address: str, group: str) -> None:
    """Check that this user may open what the kernel offers for the group."""
    for path in (_VFIO / "vfio", _VFIO / group):
        if not path.exists():
            raise HostError(
                f"the device {address} cannot be given to a machine: there is no {path}",
                hint=f"as root: modprobe {_DRIVER}; {_PAGE}",
            )
        if not os.access(path, os.R_OK | os.W_OK):
            raise HostError(
                f"the device {address} cannot be given to a machine: this user may not open {path}",
                hint=f'as root: chown "$USER" {path} (until the next boot); {_PAGE}',
            )


def _raise_limit(memory: int) -> None:
    """Raise the limit of locked memory as far as this process may; check that it is enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if _may_lock_everything() or _is_enough(soft, memory + _SPARE):
        return
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if not _is_enough(hard, memory):
        kibibytes = memory + _SPARE >> 10
        raise HostError(
            f"a machine with a device of the host has all its {format_size(memory)} of memory"
            f" locked, and this user may lock {format_size(hard)}",
            hint=f"give it less memory, or as root add to /etc/security/limits.conf: USER - memlock"
            f" {kibibytes}; then log in again",
        )


def _is_enough(limit: int, memory: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= memory


def _may_lock_everything() -> bool:
    """Tell whether the limit does not count for this process, as for root."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return False
    own = next((line for line in lines if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(own.split()[1], 16) & _IPC_LOCK)
