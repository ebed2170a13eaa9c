"""A QEMU process that runs already, and waits for the QemuMachine that takes it over.

No event loop is needed to start one, and the import of asyncio takes longer than QEMU's start.
"""

import socket
from typing import Self

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qemu.launch import Launch
from boincvm.hypervisor.qemu.process import QemuProcess
from boincvm.hypervisor.qemu.start_source import Origin


class BegunProcess:
    """`process` runs with what `origin` gave it: `launch`."""

    def __init__(self, process: QemuProcess, launch: Launch, origin: Origin) -> None:
        self.process = process
        self.launch = launch
        self.origin = origin

    @classmethod
    def start(cls, spec: MachineSpec, accelerator: str, origin: Origin) -> Self:
        """Raises HypervisorError, HypervisorMissingError, HostDiskFullError, OSError."""
        try:
            launch = origin.prepare(spec)
            process = QemuProcess(spec, accelerator, launch, origin.descriptors)
        except BaseException:
            origin.close()
            raise
        return cls(process, launch, origin)

    @property
    def link(self) -> socket.socket:
        """To the guest's agent."""
        return self.process.link

    def end(self) -> None:
        """Ends the process, if nobody has; its files stay. After a machine's end it is harmless."""
        self.process.child.end()
        self.process.close_channels()
        self.process.release()
        self.origin.close()
