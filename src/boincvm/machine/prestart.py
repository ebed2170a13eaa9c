"""Starts a machine before there is an event loop, because its boot or copy takes longest."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from boincvm.gc_freeze import late_imports
from boincvm.hypervisor.registry import open_driver, prestart
from boincvm.image.store import Image
from boincvm.machine.admission import Admission
from boincvm.machine.golden.snapshots import Found, find_golden
from boincvm.machine.golden.switch import is_enabled
from boincvm.machine.spec import clone_identity_for
from boincvm.machine.start_source import Boot, Clone, StartSource, is_bound_to_host

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import Prestart
    from boincvm.hypervisor.machine_spec import MachineSpec
    from boincvm.machine.managed import ManagedMachine
    from boincvm.machine.settings import Settings


class Prestarted:
    """A machine that starts immediately, as a copy of a golden snapshot or by booting `image`."""

    def __init__(self, driver: str, image: Image, spec: MachineSpec, silence_limit: float) -> None:
        """Start the machine, unless its driver cannot do so this early: then `machine` starts it.

        `driver`: the driver's name. `silence_limit`: the limit, in seconds, of the settings that it
        will be managed with.

        Raises UsageError, HypervisorError, HypervisorMissingError, HostDiskFullError, OSError, and
        NotEnoughRoomError if there are as many machines as may be (admission.py).
        """
        self._spec = spec
        self._driver, self._image = driver, image
        self._admission = Admission(spec.memory)
        self._prestart: Prestart | None = None
        try:
            self._begin(silence_limit)
        except BaseException:
            self._admission.end()
            raise

    def _begin(self, silence_limit: float) -> None:
        spec, image = self._spec, self._image
        early = prestart(self._driver, image.kernel)
        can_clone = not is_bound_to_host(spec)
        self.sources: list[StartSource] = [Clone(image), Boot()] if can_clone else [Boot()]
        """For `ManagedMachine.start`."""
        if early is None:
            return
        found = Found(None)
        identity = early.identity() if is_enabled() and can_clone else None
        if identity is not None:
            found = find_golden(image, spec, identity)
        if found.golden is None and not self._admission.try_boot():
            return  # others boot, and `ManagedMachine.start` waits for its turn
        self._prestart = early
        early.begin(spec, found.golden.directory if found.golden else None)
        if found.golden is not None:
            with late_imports():
                from boincvm.guestlink.attach_frame import attach_frame

            with suppress(OSError):  # if it has ended already, the driver reports why
                early.send(attach_frame(silence_limit, clone_identity_for(spec)))
        if can_clone:
            self.sources = [Clone(image, found, attach_is_sent=True), Boot()]

    async def machine(self, settings: Settings) -> ManagedMachine:
        """Return the machine, to be started with `sources`. Raises HypervisorMissingError."""
        with late_imports():
            from boincvm.machine.managed import ManagedMachine

            driver = self._prestart.driver() if self._prestart is not None else None
        if driver is None:
            driver = await open_driver(self._driver, self._image.kernel)
        return ManagedMachine(driver, self._spec, settings, self._admission)

    def end(self) -> None:
        """End what was started, unless something else has ended it already."""
        if self._prestart is not None:
            self._prestart.end()
        self._admission.end()
