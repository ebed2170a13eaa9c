"""A QEMU process that runs already, and waits for the QemuMachine that takes it over.

No event loop is needed to start one, and the import of asyncio takes longer than QEMU's start.
"""

import socket

from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qemu_origin import Origin
from boincvm.hypervisor.qemu_process import QemuProcess


class BegunProcess:
    """`process` runs with what `origin` gave it: `launch`."""

    def __init__(self, spec: MachineSpec, accelerator: str, origin: Origin) -> None:
        """Starts it. Raises HypervisorError, HypervisorMissingError, HostDiskFullError, OSError."""
        self.origin = origin
        try:
            self.launch = origin.prepare(spec)
            self.process = QemuProcess(spec, accelerator, self.launch, origin.descriptors)
        except BaseException:
            origin.close()
            raise

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
