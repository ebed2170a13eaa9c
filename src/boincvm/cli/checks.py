"""The checks of `boincvm doctor`: one function and one line of the report for each."""

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from boincvm import paths
from boincvm.errors import BoincvmError, HostError
from boincvm.exit_codes import ExitCode
from boincvm.host.processes import GUARD
from boincvm.host.resources import available_memory
from boincvm.host.virtualization import describe_nesting, loaded_modules
from boincvm.hypervisor import advisor
from boincvm.hypervisor.advisor import Verdicts
from boincvm.hypervisor.architecture import Architecture
from boincvm.hypervisor.doctor import Check, Status
from boincvm.hypervisor.registry import driver_names, find_driver
from boincvm.hypervisor.verdict import Verdict
from boincvm.sizes import format_size

MIB = 1 << 20
OLDEST_PYTHON = (3, 11)
LEAST_DISK = 256 * MIB
COMFORTABLE_DISK = 4096 * MIB
COMFORTABLE_MEMORY = 768 * MIB
"""The default machine's 512 MiB, and QEMU's own share."""


_KVM_MODULES = frozenset(("kvm_intel", "kvm_amd"))
_OTHERS = {"vboxdrv": "VirtualBox", "vmmon": "VMware"}
"""Kernel modules of other hypervisors that use the processor's virtualization."""


def python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Check("python", Status.OK, found)
    wanted = ".".join(map(str, OLDEST_PYTHON))
    return Check("python", Status.FAILED, found, f"install Python {wanted} or newer")


def setpriv() -> Check:
    if not GUARD:
        detail = "none is needed: the system ends a virtual machine whose boincvm is killed"
        return Check("setpriv", Status.OK, detail)
    path = shutil.which("setpriv")
    if path is None:
        detail = "no setpriv: if boincvm is killed, its virtual machine keeps running"
        return Check("setpriv", Status.WARNING, detail, "apt-get install util-linux")
    return Check("setpriv", Status.OK, path)


def kernel_of_an_image() -> Path | None:
    """Return the kernel of any stored image for x86-64 that is intact, or None.

    No other kernel tells whether hardware acceleration works.
    """
    from boincvm.image.store import ImageStore

    store = ImageStore()
    for name in store.names():
        try:
            with store.open_unverified(name) as image:
                if image.architecture is Architecture.X86_64:
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
        from boincvm.image.tools import how_to_get

        remedy = how_to_get("base")
        return Check("images", Status.FAILED, "none yet", remedy, ExitCode.IMAGE_MISSING)
    return Check("images", Status.OK, ", ".join(sound))


def golden_snapshots() -> Check:
    """Check whether the last golden snapshot that was to be made in the background was made."""
    from boincvm.image.store import ImageStore
    from boincvm.machine.golden.background import last_failure

    why = last_failure(ImageStore().golden)
    if why:
        detail = f"the last one could not be made, so machines boot: {why}"
        return Check("golden snapshots", Status.WARNING, detail, "see boincvm image warm NAME")
    return Check("golden snapshots", Status.OK, "no failure is known")


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


def virtualization() -> Check:
    """Check for hypervisors of others that hold what ours need."""
    loaded = loaded_modules()
    theirs = [f"{who} ({module})" for module, who in _OTHERS.items() if module in loaded]
    parts = [*filter(None, [describe_nesting()]), *(f"{name} is loaded" for name in theirs)]
    detail = "; ".join(parts) or "nothing else on this host is known to use it"
    if theirs and loaded & _KVM_MODULES:
        remedy = "stop its machines before using KVM: many kernels give VT-x to one hypervisor only"
        return Check("virtualization", Status.WARNING, f"{detail}, beside KVM", remedy)
    return Check("virtualization", Status.OK, detail)


def preferences() -> Check:
    """Check that the preferences can be read, and repeat what they say."""
    from boincvm.hypervisor.preferences import preferences_file, read_preferences

    chosen = read_preferences()
    settings = [
        f"{name} = {value}" for name, value in chosen._asdict().items() if value is not None
    ]
    what = ", ".join(settings) or "none"
    return Check("preferences", Status.OK, f"{what} ({preferences_file()})")


NamedChecks = tuple[tuple[str, Callable[[], Check | list[Check]]], ...]

_BEFORE: NamedChecks = (("python", python),)
_AFTER: NamedChecks = (
    ("virtualization", virtualization),
    ("setpriv", setpriv),
    ("images", images),
    ("golden snapshots", golden_snapshots),
    ("image tools", build_tools),
    ("room for runs", run_space),
    ("room for images", image_space),
    ("memory", memory),
    ("preferences", preferences),
)


class Groups(NamedTuple):
    """The checks, in order."""

    before: NamedChecks
    drivers: NamedChecks
    """If these fail a job can still run with another driver."""
    after: NamedChecks


def groups() -> Groups:
    """Return all checks, including the drivers'."""
    drivers = tuple((name, partial(_check_driver, name)) for name in driver_names())
    return Groups(_BEFORE, drivers, _AFTER)


def verdicts() -> tuple[Verdicts, list[Check]]:
    """Determine again what each driver can do here; return that, and errors in doing so."""
    found: dict[str, Verdict] = {}

    def find_out() -> list[Check]:
        found.update(advisor.verdicts(kernel_of_an_image, refresh=True))
        return []

    troubles = examine("drivers", find_out)
    return found, troubles


def _check_driver(driver: str) -> list[Check]:
    """Return the findings of a driver; what somebody else's raises is one of them."""
    found: list[Check] = []
    for name, check in find_driver(driver).checks:
        found += examine(name, partial(check, kernel_of_an_image))
    return found


def examine(name: str, function: Callable[[], Check | list[Check]]) -> list[Check]:
    """Return the results of one check; failing to make it is a result too, whatever it raises.

    A check may be somebody else's, and one that cannot be made must not hide all others.
    """
    try:
        found = function()
    except BoincvmError as error:
        return [Check(name, Status.FAILED, error.message, error.hint, error.exit_code)]
    except OSError as error:
        return [Check(name, Status.FAILED, str(error), "", ExitCode.HOST)]
    except (Exception, SystemExit) as error:
        reason = "".join(filter(str.isprintable, f"{type(error).__name__}: {error}"))[:300]
        return [Check(name, Status.FAILED, f"the check failed: {reason}", "", ExitCode.BUG)]
    return found if isinstance(found, list) else [found]
