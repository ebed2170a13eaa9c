"""A running QEMU process that waits for the QemuMachine that takes it over.

Starting one needs no event loop, and importing asyncio takes longer than QEMU's start.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Self

from boincvm.hypervisor.architecture import kernel_architecture
from boincvm.hypervisor.machine_spec import MachineSpec
from boincvm.hypervisor.qemu.acceleration import known_verdict, probe
from boincvm.hypervisor.qemu.identity import identity
from boincvm.hypervisor.qemu.launch import Launch
from boincvm.hypervisor.qemu.process import QemuProcess
from boincvm.hypervisor.qemu.start_source import Boot, StartSource, copy_of
from boincvm.hypervisor.qemu.target import TARGETS

if TYPE_CHECKING:
    from boincvm.hypervisor.contract import Driver


class StartedProcess:
    """A running process with the `launch` that `source` prepared for it."""

    def __init__(self, process: QemuProcess, launch: Launch, source: StartSource) -> None:
        self.process = process
        self.launch = launch
        self.source = source

    @classmethod
    def start(cls, spec: MachineSpec, accelerator: str, source: StartSource) -> Self:
        """Start the process.

        Raises HypervisorError, HypervisorMissingError, HostDiskFullError, OSError.
        """
        try:
            launch = source.prepare(spec)
            process = QemuProcess(spec, accelerator, launch, source.descriptors)
        except BaseException:
            source.close()
            raise
        return cls(process, launch, source)

    @property
    def link(self) -> socket.socket:
        """The channel to the guest's agent."""
        return self.process.connect()[1]

    def end(self) -> None:
        """End the process if nobody has taken it over; its files stay. Idempotent."""
        self.process.child.end()
        self.process.close_channels()
        self.process.release()
        self.source.close()


class QemuPrestart:
    """Starts one QEMU process before there is an event loop; see `contract.Prestart`."""

    def __init__(self, kernel: Path) -> None:
        """Choose the accelerator. Raises HypervisorMissingError."""
        known = known_verdict(kernel)
        if known is None:
            import asyncio

            known = asyncio.run(probe(kernel))
        self._accelerator = known.accelerator
        self._architecture = kernel_architecture(kernel)
        self._started: StartedProcess | None = None

    def identity(self) -> dict[str, str]:
        return identity(self._accelerator, TARGETS[self._architecture])

    def begin(self, spec: MachineSpec, golden: Path | None) -> None:
        """Begin the machine.

        Raises HypervisorError, HypervisorMissingError, HostDiskFullError, OSError.
        """
        source = copy_of(golden) if golden else Boot()
        self._started = StartedProcess.start(spec, self._accelerator, source)

    def send(self, data: bytes) -> None:
        """Write to the guest link's channel. Raises OSError if QEMU has ended."""
        if self._started is None:
            raise RuntimeError("nothing has been prestarted")
        self._started.link.sendall(data)

    def driver(self) -> Driver:
        from boincvm.hypervisor.qemu.driver import QemuDriver

        return QemuDriver(self._accelerator, self._started, self._architecture)

    def end(self) -> None:
        if self._started is not None:
            self._started.end()
