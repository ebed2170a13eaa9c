"""A User-mode Linux that runs before there is an event loop, and the machine that takes it over.

Importing asyncio takes a third as long as its boot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from boincvm.hypervisor.uml.disks import Disks
from boincvm.hypervisor.uml.kernel import find_kernel
from boincvm.hypervisor.uml.launch import Launched
from boincvm.hypervisor.uml.network import is_available
from boincvm.hypervisor.uml.sandbox import find

if TYPE_CHECKING:
    from pathlib import Path

    from boincvm.hypervisor.contract import Driver, MachineSpec


class UmlPrestart:
    """Starts one machine before there is an event loop; see `contract.Prestart`."""

    def __init__(self) -> None:
        """Choose the kernel. Raises HypervisorMissingError."""
        self._kernel = find_kernel()
        find("bwrap")
        self._launched: Launched | None = None

    def identity(self) -> None:
        """Return None: there are no golden snapshots."""

    def begin(self, spec: MachineSpec, golden: Path | None) -> None:
        """Begin the machine, unless it is to have what none has, which its driver tells.

        Raises HypervisorError, HypervisorMissingError, HostDiskFullError, OSError.
        """
        if golden is not None:
            raise RuntimeError("a User-mode Linux cannot be a copy of another")
        if spec.cpus > 1 or (spec.network and not is_available(self._kernel)):
            return
        disks = Disks(spec)
        try:
            self._launched = Launched(spec, self._kernel, disks)
        except BaseException:
            disks.close()
            raise

    def send(self, data: bytes) -> None:  # noqa: ARG002
        """Never called: only a copy is told something this early."""
        raise RuntimeError("a User-mode Linux that is still booting cannot be sent anything")

    def driver(self) -> Driver:
        from boincvm.hypervisor.uml.driver import UmlDriver  # it imports asyncio

        return UmlDriver(self._kernel, self._launched)

    def end(self) -> None:
        if self._launched is not None:
            self._launched.process.end()
            self._launched.close()
