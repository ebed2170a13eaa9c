"""The User-mode Linux driver: the kernel is a program, its processes share one namespace."""

import asyncio
from typing import TYPE_CHECKING

from boincvm.errors import HypervisorError
from boincvm.host.process_tree import KILL
from boincvm.hypervisor.channel import Channel
from boincvm.hypervisor.console import Console
from boincvm.hypervisor.contract import (
    EndCause,
    MachineEnd,
    MachineSpec,
    MachineState,
    Usage,
)
from boincvm.hypervisor.disks import TRANSFER_DISK, TransferDiskFile
from boincvm.hypervisor.life_cycle import check_can_start
from boincvm.hypervisor.serial_line import SerialChannel
from boincvm.hypervisor.uml.disks import DISK, Disks
from boincvm.hypervisor.uml.kernel import UmlKernel
from boincvm.hypervisor.uml.launch import Launched
from boincvm.hypervisor.uml.network import is_available
from boincvm.hypervisor.uml.process import UmlProcess

if TYPE_CHECKING:
    from boincvm.hypervisor import contract
    from boincvm.hypervisor.uml.network import Network
    from boincvm.job.model import PortForward

_DISK_FULL = b"critical space allocation error, dev ubd"
"""What the kernel says of a write that the host had no room for."""
_KILLED = 128 + KILL
"""The exit status of bwrap when the kernel was killed."""


class UmlDriver:
    """Makes machines on User-mode Linux."""

    name = "uml"
    has_firmware = False
    most_cpus = 1
    saved_machines = None
    golden_snapshots = None

    def __init__(self, kernel: UmlKernel, launched: Launched | None = None) -> None:
        """Use `kernel`. `launched`: what the first machine is, which runs already."""
        self._kernel = kernel
        self._launched = launched

    def machine(self, spec: MachineSpec) -> "UmlMachine":
        launched, self._launched = self._launched, None
        return UmlMachine(spec, self._kernel, launched)


class UmlMachine:
    """A machine that is a User-mode Linux and its two disk files."""

    checkpointing = None
    freezing = None
    balloon = None
    display = None
    screenshots = None
    remote_desktop = None
    root_disk = None

    def __init__(
        self, spec: MachineSpec, kernel: UmlKernel, launched: Launched | None = None
    ) -> None:
        self.spec = spec
        self._kernel = kernel
        self._launched = launched
        self.state = MachineState.DEFINED
        self._disks: Disks | None = None
        self._process: UmlProcess | None = None
        self._console: Console | None = None
        self._asked_to_end = False
        self._is_disk_full = False
        self._end_of_output = b""
        self._has_network = spec.network and is_available(kernel)
        self._is_connected = True

    @property
    def network(self) -> "contract.NetworkCard | None":
        return self if self._has_network else None

    @property
    def forwards(self) -> "tuple[PortForward, ...]":
        """Return the forwarded ports: see `contract.NetworkCard`."""
        return self.spec.forwards

    async def connect(self, *, connected: bool) -> None:
        """Plug the cable in, or unplug it: see `contract.NetworkCard`."""
        self._is_connected = connected
        network = self._launched.network if self._launched is not None else None
        if network is not None and self.state.is_active:
            network.connect(connected=connected)

    @property
    def transfer_disk(self) -> TransferDiskFile | None:
        return TransferDiskFile(self._disks.transfer_disk) if self._disks is not None else None

    @property
    def disk_layers(self) -> tuple[str, ...]:
        return () if self.spec.ephemeral else (DISK,)

    def files_in_use(self) -> frozenset[str]:
        return frozenset() if self.spec.ephemeral else frozenset((DISK, TRANSFER_DISK))

    def usage(self) -> Usage | None:
        usage = self._process.usage() if self._process is not None else None
        network = self._launched.network if self._launched is not None else None
        if usage is None or network is None:
            return usage
        its = network.usage()
        return Usage(usage.cpu_seconds + its.cpu_seconds, usage.resident + its.resident)

    def process_ids(self) -> tuple[int, ...]:
        kernel = self._process.kernel if self._process is not None else None
        if kernel is None:
            return ()
        network = self._launched.network if self._launched is not None else None
        if network is None or not network.child.is_running:
            return (kernel,)
        return (kernel, network.child.pid)

    async def create(self) -> None:
        if self.state is MachineState.DEFINED:
            self._disks = self._launched.disks if self._launched else Disks(self.spec)
            self.state = MachineState.CREATED

    async def start(self) -> Channel:
        has_ended = self.state is not MachineState.DEFINED and self._disks is None
        check_can_start(self.state, has_ended=has_ended)
        await self.create()
        disks = self._disks
        if disks is None:
            raise RuntimeError("a created machine has no disks")
        self._launched = self._launched or Launched(self.spec, self._kernel, disks)
        process = self._process = self._launched.process
        # A kernel that has panicked hangs forever.
        self._console = Console(
            process.console, on_panic=process.kill, on_output=self._look_for_full_disk
        )
        self.state = MachineState.RUNNING
        if self._launched.network is not None:
            self._launched.network.read_output()
            if not self._is_connected:
                self._launched.network.connect(connected=False)
        return SerialChannel(process.link, process.receipts)

    def _look_for_full_disk(self, output: bytes) -> None:
        """End a machine whose writes get lost, or its programs would go on with what is left."""
        seen = self._end_of_output + output
        self._end_of_output = seen[-len(_DISK_FULL) :]
        if _DISK_FULL in seen and self._process is not None:
            self._is_disk_full = True
            self._process.kill()

    def _running(self, wanted: str) -> UmlProcess:
        if self._process is None or not self.state.is_active:
            raise HypervisorError(f"the machine is not running, so it cannot be {wanted}")
        return self._process

    async def pause(self) -> None:
        process = self._running("paused")
        if self.state is MachineState.RUNNING:
            process.pause()
            self.state = MachineState.PAUSED

    async def resume(self) -> None:
        process = self._running("resumed")
        if self.state is MachineState.PAUSED:
            process.resume()
            self.state = MachineState.RUNNING

    async def stop(self) -> None:
        if self._process is not None:
            self._asked_to_end = True
            self._process.kill()
            await self._process.child.wait()
        if self._console is not None:
            self._console.close()
        if self._disks is not None:
            self._disks.close()
            self._disks = None
        if self._launched is not None:
            self._launched.close()
            self._launched = None
        if self.state.is_active:
            self.state = MachineState.STOPPED

    async def destroy(self) -> None:
        await self.stop()
        if self.state is not MachineState.DESTROYED:
            for name in (DISK, TRANSFER_DISK):
                (self.spec.directory / name).unlink(missing_ok=True)
            self.state = MachineState.DESTROYED

    async def ended(self) -> MachineEnd:
        process, console = self._process, self._console
        if process is None or console is None:
            raise HypervisorError("the machine was never started")
        network = self._launched.network if self._launched is not None else None
        lost = await _lost_network(process, network) if network is not None else None
        status = await process.child.wait()
        if network is not None:
            network.child.kill()  # nothing of the machine outlives its kernel
        if self._asked_to_end:
            return MachineEnd(EndCause.ASKED, "")
        if self._is_disk_full:
            return MachineEnd(EndCause.HOST_DISK_FULL, "the host's disk is full")
        if lost is not None:
            return lost
        if panic := console.panic_line():
            return MachineEnd(EndCause.PANICKED, panic)
        if status == 0:
            return MachineEnd(EndCause.POWERED_OFF, "")
        if status < 0 or status == _KILLED:
            return MachineEnd(EndCause.KILLED, "User-mode Linux was ended by a signal")
        output = console.last_output() or f"User-mode Linux ended with {status}"
        return MachineEnd(EndCause.FAILED, output)


async def _lost_network(process: UmlProcess, network: "Network") -> MachineEnd | None:
    """Return None when the kernel ends; kill it if the network ends, and return how that did."""
    kernel, its = (asyncio.ensure_future(one.wait()) for one in (process.child, network.child))
    try:
        await asyncio.wait((kernel, its), return_when=asyncio.FIRST_COMPLETED)
        if kernel.done():
            return None
        process.kill()
        return network.machine_end(its.result())
    finally:
        for end in (kernel, its):
            end.cancel()
        await asyncio.gather(kernel, its, return_exceptions=True)
