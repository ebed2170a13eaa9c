"""The checks of `boincvm doctor`: one function and one line of the report for each."""

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from boincvm import paths
from boincvm.errors import BoincvmError, HostError
from boincvm.exit_codes import ExitCode
from boincvm.host.resources import available_memory
from boincvm.hypervisor.doctor import Check, Status
from boincvm.hypervisor.registry import driver_names, find_driver
from boincvm.sizes import format_size

MIB = 1 << 20
OLDEST_PYTHON = (3, 11)
LEAST_DISK = 256 * MIB
COMFORTABLE_DISK = 4096 * MIB
COMFORTABLE_MEMORY = 768 * MIB
"""The default machine's 512 MiB, and QEMU's own share."""


def python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Check("python", Status.OK, found)
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Check("python", Status.FAILED, found, f"install Python {wanted} or newer")


def setpriv() -> Check:
    path = shutil.which("setpriv")
    if path is None:
        detail = "no setpriv: if boincvm is killed, its virtual machine keeps running"
        return Check("setpriv", Status.WARNING, detail, "apt-get install util-linux")
    return Check("setpriv", Status.OK, path)


def kernel_of_an_image() -> Path | None:
    """Return the kernel of any stored image that is intact, or None."""
    from boincvm.image.store import ImageStore

    store = ImageStore()
    for name in store.names():
        try:
            with store.open_unverified(name) as image:
                return image.kernel
        except BoincvmError:
            continue  # damaged: the check `images` reports it
    return None


def build_tools() -> Check:
    from boincvm.image.tools import check_host

    try:
        check_host(_existing(paths.data_directory()))
    except BoincvmError as error:
        detail = f"{error.message} (only building needs this)"
        return Check("image tools", Status.WARNING, detail, error.hint)
    return Check("image tools", Status.OK, "images can be built here")


def images() -> Check:
    from boincvm.image.store import ImageStore

    store, sound, damaged = ImageStore(), [], ""
    for name in store.names():
        try:
            store.open_unverified(name).close()
        except BoincvmError as error:
            damaged = error.message
        else:
            sound.append(name)
    if damaged:
        status = Status.WARNING if sound else Status.FAILED
        remedy = "build it again: boincvm image build"
        return Check("images", status, damaged, remedy, ExitCode.IMAGE_DAMAGED)
    if not sound:
        remedy = "boincvm image build base"
        return Check("images", Status.FAILED, "none yet", remedy, ExitCode.IMAGE_MISSING)
    return Check("images", Status.OK, ", ".join(sound))


def run_space() -> Check:
    return _space("room for runs", paths.runs_directory())


def image_space() -> Check:
    return _space("room for images", paths.data_directory())


def _space(name: str, directory: Path) -> Check:
    existing = _existing(directory)
    elsewhere = "set BOINCVM_HOME to a directory with room"
    if not os.access(existing, os.W_OK | os.X_OK):
        detail = f"{existing} cannot be written to"
        return Check(name, Status.FAILED, detail, elsewhere, ExitCode.HOST)
    free = shutil.disk_usage(existing).free
    detail = f"{format_size(free)} free at {directory}"
    if free < LEAST_DISK:
        return Check(name, Status.FAILED, detail, elsewhere, ExitCode.HOST_DISK_FULL)
    if free < COMFORTABLE_DISK:
        return Check(name, Status.WARNING, detail, elsewhere)
    return Check(name, Status.OK, detail)


def memory() -> Check:
    try:
        free = available_memory()
    except HostError:
        return Check("memory", Status.WARNING, "the kernel does not report how much is free")
    detail = f"{format_size(free)} available"
    if free < COMFORTABLE_MEMORY:
        remedy = "close other programs, or use less: boincvm run --memory 256M"
        return Check("memory", Status.WARNING, detail, remedy)
    return Check("memory", Status.OK, detail)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


LookUps = tuple[tuple[str, Callable[[], Check | list[Check]]], ...]

_BEFORE: LookUps = (("python", python),)
_AFTER: LookUps = (
    ("setpriv", setpriv),
    ("images", images),
    ("image tools", build_tools),
    ("room for runs", run_space),
    ("room for images", image_space),
    ("memory", memory),
)


def look_ups() -> LookUps:
    """Return all checks in order, including the drivers'."""
    drivers: list[tuple[str, Callable[[], Check | list[Check]]]] = [
        (name, partial(look, kernel_of_an_image))
        for driver in driver_names()
        for name, look in find_driver(driver).look_ups
    ]
    return (*_BEFORE, *drivers, *_AFTER)


def examine(name: str, function: Callable[[], Check | list[Check]]) -> list[Check]:
    """Return the results of one check; failing to make it is a result too."""
    try:
        found = function()
    except (BoincvmError, OSError) as error:
        hint = error.hint if isinstance(error, BoincvmError) else ""
        code = error.exit_code if isinstance(error, BoincvmError) else ExitCode.HOST
        return [Check(name, Status.FAILED, str(error), hint, code)]
    return found if isinstance(found, list) else [found]
