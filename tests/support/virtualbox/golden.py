"""A golden snapshot that is made once, of which tests start copies.

A boot takes a minute or two in VirtualBox's interpreter, a copy a second or two. The snapshot lies
in the cache, in a data directory of its own with its image, for one image and one version of the
hypervisor.
"""

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

from boincvm.host import locks
from boincvm.host.own_files import make_directory
from boincvm.hypervisor.contract import Driver, GoldenSnapshots, Machine, MachineSpec
from boincvm.image.store import ImageStore
from boincvm.job.model import Limits
from boincvm.machine.golden.maker import make_golden
from boincvm.machine.golden.snapshots import find_golden
from boincvm.paths import cache_directory
from support.golden_home import link_images

BOOT_LIMIT = 500.0
"""Seconds that a boot may take on a busy host."""
WITH_A_BOOT = BOOT_LIMIT + 300.0
"""Seconds for a test that may be the first one, and has to boot it."""
_LIMITS = Limits(boot=BOOT_LIMIT, silence=BOOT_LIMIT, stop=BOOT_LIMIT)
STATES: WeakKeyDictionary[Machine, Mapping[str, object]] = WeakKeyDictionary()
"""The guest link's states of machines that are copies: see `support.driven.answering`."""


class GoldenMachine(NamedTuple):
    """The snapshot's directory as that of its spec, and the guest link's state in it."""

    spec: MachineSpec
    link: dict[str, object]

    @property
    def data_directory(self) -> Path:
        """Return the data directory of a user who has it, and its image."""
        return self.spec.directory.parents[3]

    def clone(self, driver: Driver, spec: MachineSpec) -> Machine:
        """Return a copy, which `answering` starts as if it had booted."""
        machine = _snapshots(driver).clone(spec, self.spec.directory)
        STATES[machine] = self.link
        return machine

    def is_like(self, spec: MachineSpec) -> bool:
        """Tell whether a machine of that shape can be a copy."""
        free = {"directory": self.spec.directory, "ephemeral": False}
        return spec._replace(**free) == self.spec


def _last_use(home: Path) -> int:
    return home.stat().st_mtime_ns


def _snapshots(driver: Driver) -> GoldenSnapshots:
    assert driver.golden_snapshots is not None
    return driver.golden_snapshots


async def golden_machine(
    driver: Driver, spec: MachineSpec, name: str = "base", *, balloon: bool = True
) -> GoldenMachine:
    """Return the snapshot for machines like `spec` of the image `name`, made where it is missing.

    With `balloon` it is one for a task of a BOINC client.
    """
    identity = _snapshots(driver).identity()
    needs = json.dumps([spec.root.parent.name, identity], sort_keys=True)
    # One for each image: of what is there for others only one is kept.
    image_s_own = "" if name.startswith("base") else f"-{name}"
    location = cache_directory() / f"{driver.name}-golden{image_s_own}"
    make_directory(location)
    with (location / "lock").open("w") as lock:
        await asyncio.to_thread(locks.lock, lock.fileno())
        home = location / hashlib.sha256(needs.encode()).hexdigest()[:16]
        images = home / "boincvm/images"
        if not (images / "golden").exists():
            others = sorted(filter(Path.is_dir, location.iterdir()), key=_last_use)
            for old in others[:-1]:  # another checkout's tests may be using the last one
                shutil.rmtree(old)
            make_directory(home)
            link_images(images, name)
        os.utime(home)
        with ImageStore(images).open(name) as image:
            shape = spec._replace(balloon=balloon, ephemeral=False)
            await make_golden(driver, image, shape, _LIMITS)
            found = find_golden(image, shape, identity).golden
            assert found is not None
    return GoldenMachine(spec._replace(directory=found.directory, ephemeral=False), found.link)


class StartsCopies:
    """A driver whose machines are copies where they can be, for the conformance suite."""

    def __init__(self, driver: Driver, golden: GoldenMachine) -> None:
        self._driver = driver
        self._golden = golden
        self.name = driver.name
        self.has_firmware = driver.has_firmware
        self.most_cpus = driver.most_cpus
        self.saved_machines = driver.saved_machines
        self.golden_snapshots = driver.golden_snapshots

    def machine(self, spec: MachineSpec) -> Machine:
        if self._golden.is_like(spec):
            return self._golden.clone(self._driver, spec)
        return self._driver.machine(spec)
