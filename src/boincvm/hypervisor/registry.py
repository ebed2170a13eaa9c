"""The registry of drivers: built-in ones, and others by entry points; imported only when used."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

from boincvm.errors import HypervisorMissingError, UsageError
from boincvm.hypervisor.architecture import Architecture, kernel_architecture

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from boincvm.hypervisor.contract import Driver, DriverPackage, Prestart

DEFAULT = "qemu"
"""The driver that is used unless another is requested."""
BUILT_IN = {
    "qemu": "boincvm.hypervisor.qemu.package",
    "uml": "boincvm.hypervisor.uml.package",
    "virtualbox": "boincvm.hypervisor.virtualbox.package",
    "libvirt": "boincvm.hypervisor.libvirt.package",
    "vmware": "boincvm.hypervisor.vmware.package",
    "fake": "boincvm.hypervisor.fake.package",
}
"""Modules with a `PACKAGE`, by driver name."""
ENTRY_POINTS = "boincvm.drivers"
"""The group of entry points, each of which is a `contract.DriverPackage` under its own name."""
TESTS_ALONE = "fake"


class BrokenDriverError(HypervisorMissingError):
    """Somebody else's driver is installed, but cannot be used with this boincvm."""


def find_driver(name: str = DEFAULT) -> DriverPackage:
    """Return the package of the driver `name`.

    Raises UsageError if it does not exist, and BrokenDriverError if it cannot be used.
    """
    module = BUILT_IN.get(name)
    if module is not None:
        return cast("DriverPackage", importlib.import_module(module).PACKAGE)
    from importlib.metadata import entry_points  # slow, and rarely needed

    for found in entry_points(group=ENTRY_POINTS, name=name):
        return _load(found)
    from boincvm.similar_names import did_you_mean  # rarely needed

    known = driver_names()
    raise UsageError(
        f"there is no driver {ascii(name)[:40]}",
        hint=f"{did_you_mean(name, known)}choose one of: {', '.join(known)}",
    )


def _load(found: EntryPoint) -> DriverPackage:
    """Import somebody else's driver. Raises BrokenDriverError, whatever its import raises."""
    from boincvm.hypervisor.contract import CONTRACT_VERSION  # slow, and ours have it anyway

    try:
        package = found.load()
        version = package.contract_version
    except (Exception, SystemExit) as error:
        raise _broken(found, f"{type(error).__name__}: {error}") from error
    if version != CONTRACT_VERSION:
        raise _broken(
            found,
            f"it was written for version {ascii(version)[:20]} of the drivers' contract, and this"
            f" boincvm has version {CONTRACT_VERSION}",
        )
    return cast("DriverPackage", package)


def _broken(found: EntryPoint, why: str) -> BrokenDriverError:
    owner = f" (of the package {ascii(found.dist.name)[1:-1][:60]})" if found.dist else ""
    name = ascii(found.name)[1:-1][:40]
    reason = "".join(filter(str.isprintable, why))[:200]
    return BrokenDriverError(
        f"the driver {name}{owner} cannot be used: {reason}",
        hint="install a version of it that fits this boincvm, or choose another driver",
    )


def driver_names() -> list[str]:
    """Return the names of all drivers that can run a guest, the default one first."""
    from importlib.metadata import entry_points

    ours = [name for name in BUILT_IN if name != TESTS_ALONE]
    return ours + sorted({found.name for found in entry_points(group=ENTRY_POINTS)} - set(BUILT_IN))


async def open_driver(name: str, kernel: Path | None) -> Driver:
    """Return the driver `name`, ready for machines that boot `kernel`.

    Raises UsageError, HypervisorMissingError, HypervisorError.
    """
    return await _driver_for(name, kernel).open(kernel)


def prestart(name: str, kernel: Path) -> Prestart | None:
    """Return what begins a machine of the driver `name` before there is an event loop.

    Returns None if it cannot. Raises UsageError, HypervisorMissingError, HypervisorError.
    """
    return _driver_for(name, kernel).prestart(kernel)


def _driver_for(name: str, kernel: Path | None) -> DriverPackage:
    """Return the package of the driver `name`. Raises UsageError if it cannot boot `kernel`."""
    package, architecture = find_driver(name), kernel_architecture(kernel)
    # Any driver runs x86-64; to look at abilities imports much.
    if architecture is not Architecture.X86_64 and (
        architecture not in package.abilities.architectures
    ):
        raise UsageError(
            f"the driver {name} runs no images for {architecture.value}",
            hint=f"choose the driver {DEFAULT}, or an image for x86_64",
        )
    return package
