"""The registry of drivers: built-in ones, and others by entry points; imported only when used."""

import importlib
from pathlib import Path
from typing import cast

from boincvm.errors import UsageError
from boincvm.hypervisor.contract import Driver, DriverPackage, Prestart

DEFAULT = "qemu"
"""The driver that is used unless another is requested."""
BUILT_IN = {
    "qemu": "boincvm.hypervisor.qemu.package",
    "uml": "boincvm.hypervisor.uml.package",
    "fake": "boincvm.hypervisor.fake.package",
}
"""Modules with a `PACKAGE`, by driver name."""
ENTRY_POINTS = "boincvm.drivers"
"""The group of entry points, each of which is a `contract.DriverPackage` under its own name."""
_TESTS_ALONE = "fake"


def find_driver(name: str = DEFAULT) -> DriverPackage:
    """Return the package of the driver `name`. Raises UsageError if it does not exist."""
    module = BUILT_IN.get(name)
    if module is not None:
        return cast(DriverPackage, importlib.import_module(module).PACKAGE)
    from importlib.metadata import entry_points  # slow, and rarely needed

    for found in entry_points(group=ENTRY_POINTS, name=name):
        return cast(DriverPackage, found.load())
    raise UsageError(
        f"there is no driver {ascii(name)[:40]}", hint=f"choose one of: {', '.join(driver_names())}"
    )


def driver_names() -> list[str]:
    """Return the names of all drivers that can run a guest, the default one first."""
    from importlib.metadata import entry_points

    ours = [name for name in BUILT_IN if name != _TESTS_ALONE]
    return ours + sorted({found.name for found in entry_points(group=ENTRY_POINTS)} - set(BUILT_IN))


async def open_driver(name: str, kernel: Path | None) -> Driver:
    """Return the driver `name`, ready for machines that boot `kernel`.

    Raises UsageError, HypervisorMissingError.
    """
    return await find_driver(name).open(kernel)


def prestart(name: str, kernel: Path) -> Prestart | None:
    """Return what begins a machine of the driver `name` before there is an event loop.

    Returns None if it cannot. Raises UsageError, HypervisorMissingError.
    """
    return find_driver(name).prestart(kernel)
