"""A machine of the real VirtualBox that has booted once, of which tests start copies.

A boot takes a minute or two in VirtualBox's interpreter, a copy a second or two. It lies in the
cache, for one image and one VirtualBox.
"""

import asyncio
import fcntl
import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from weakref import WeakKeyDictionary

from boincvm.guestlink.link import GuestLink
from boincvm.host.own_files import make_directory
from boincvm.hypervisor.contract import Machine, MachineSpec
from boincvm.hypervisor.virtualbox.driver import VirtualBoxDriver
from boincvm.hypervisor.virtualbox.machine import VirtualBoxMachine
from boincvm.paths import cache_directory

BOOT_LIMIT = 500.0
"""Seconds that a boot may take on a busy host."""
WITH_A_BOOT = BOOT_LIMIT + 300.0
"""Seconds for a test that may be the first one, and has to boot it."""
_PLACE, _LINK = "virtualbox-golden", "link.json"
STATES: WeakKeyDictionary[Machine, Mapping[str, object]] = WeakKeyDictionary()
"""The guest link's states of machines that are copies: see `support.driven.answering`."""


class GoldenMachine(NamedTuple):
    """The snapshot, and the guest link's state in it."""

    spec: MachineSpec
    link: dict[str, object]

    def clone(self, driver: VirtualBoxDriver, spec: MachineSpec) -> VirtualBoxMachine:
        """Return a copy, which `answering` starts as if it had booted."""
        machine = driver.golden_snapshots.clone(spec, self.spec.directory)
        STATES[machine] = self.link
        return machine

    def is_like(self, spec: MachineSpec) -> bool:
        """Tell whether a machine of that shape can be a copy."""
        free = {"directory": self.spec.directory, "ephemeral": False}
        return spec._replace(**free) == self.spec


async def golden_machine(driver: VirtualBoxDriver, spec: MachineSpec) -> GoldenMachine:
    """Return the snapshot for machines like `spec`, made where it is missing."""
    image = spec.root.parent.name
    needs = json.dumps([image, spec.memory, driver.golden_snapshots.identity()], sort_keys=True)
    name = hashlib.sha256(needs.encode()).hexdigest()[:16]
    place = cache_directory() / _PLACE
    make_directory(place)
    with (place / "lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        directory = place / name
        if not (directory / _LINK).exists():
            for old in place.iterdir():
                with suppress(NotADirectoryError):
                    shutil.rmtree(old)
            directory.mkdir(mode=0o700)
            link = await _boot_and_freeze(driver, spec._replace(directory=directory))
            (directory / _LINK).write_text(json.dumps(link))
    golden = spec._replace(directory=directory, ephemeral=False)
    return GoldenMachine(golden, json.loads((directory / _LINK).read_text()))


async def _boot_and_freeze(driver: VirtualBoxDriver, spec: MachineSpec) -> dict[str, object]:
    machine = driver.golden_snapshots.machine(spec)
    try:
        link = await GuestLink.open(await machine.start(), silence_limit=BOOT_LIMIT)
        try:
            async with asyncio.timeout(BOOT_LIMIT):
                await asyncio.wait((link.ready, link.failure), return_when=asyncio.FIRST_COMPLETED)
            assert link.ready.done(), link.failure.result()
            await link.quiesce(BOOT_LIMIT)
            state = link.state()
            assert machine.freezing is not None
            await machine.freezing.freeze()
        finally:
            link.close()
    except BaseException:
        await machine.destroy()
        raise
    return state


class StartsCopies:
    """A driver whose machines are copies where they can be, for the conformance suite."""

    def __init__(self, driver: VirtualBoxDriver, golden: GoldenMachine) -> None:
        self._driver = driver
        self._golden = golden
        self.name = driver.name
        self.has_firmware = driver.has_firmware
        self.most_cpus = driver.most_cpus
        self.saved_machines = driver.saved_machines
        self.golden_snapshots = driver.golden_snapshots

    def machine(self, spec: MachineSpec) -> VirtualBoxMachine:
        if self._golden.is_like(spec):
            return self._golden.clone(self._driver, spec)
        return self._driver.machine(spec)
