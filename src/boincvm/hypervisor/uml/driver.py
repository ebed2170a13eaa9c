"""The User-mode Linux driver: the kernel is a program, its processes share one namespace."""

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
from boincvm.hypervisor.serial_line import SerialChannel
from boincvm.hypervisor.uml.disks import DISK, Disks
from boincvm.hypervisor.uml.kernel import UmlKernel
from boincvm.hypervisor.uml.launch import Launched
from boincvm.hypervisor.uml.process import UmlProcess

_KILLED = 128 + KILL
"""The exit status of bwrap when the kernel was killed."""
_RUNS = (MachineState.RUNNING, MachineState.PAUSED)


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
    network = None
    display = None
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

    @property
    def transfer_disk(self) -> TransferDiskFile | None:
        return TransferDiskFile(self._disks.window) if self._disks is not None else None

    @property
    def disk_layers(self) -> tuple[str, ...]:
        return () if self.spec.ephemeral else (DISK,)

    def files_in_use(self) -> frozenset[str]:
        return frozenset() if self.spec.ephemeral else frozenset((DISK, TRANSFER_DISK))

    def usage(self) -> Usage | None:
        return self._process.usage() if self._process is not None else None

    def process_ids(self) -> tuple[int, ...]:
        kernel = self._process.kernel if self._process is not None else None
        return () if kernel is None else (kernel,)

    async def create(self) -> None:
        if self.state is MachineState.DEFINED:
            self._disks = self._launched.disks if self._launched else Disks(self.spec)
            self.state = MachineState.CREATED

    async def start(self) -> Channel:
        if self.state in _RUNS:
            raise HypervisorError("the machine is already running, and its link is in use")
        if self.state is not MachineState.DEFINED and self._disks is None:
            raise HypervisorError("the machine has ended, so it cannot start again")
        await self.create()
        disks = self._disks
        if disks is None:
            raise RuntimeError("a created machine has no disks")
        self._launched = self._launched or Launched(self.spec, self._kernel, disks)
        process = self._process = self._launched.process
        # A kernel that has panicked hangs forever.
        self._console = Console(process.console, on_panic=process.kill)
        self.state = MachineState.RUNNING
        return SerialChannel(process.link, process.receipts)

    def _running(self, wanted: str) -> UmlProcess:
        if self._process is None or self.state not in _RUNS:
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
        if self.state in _RUNS:
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
        status = await process.child.wait()
        if self._asked_to_end:
            return MachineEnd(EndCause.ASKED, "")
        if panic := console.panic_line():
            return MachineEnd(EndCause.PANICKED, panic)
        if status == 0:
            return MachineEnd(EndCause.POWERED_OFF, "")
        if status < 0 or status == _KILLED:
            return MachineEnd(EndCause.KILLED, "User-mode Linux was ended by a signal")
        output = console.last_output() or f"User-mode Linux ended with {status}"
        return MachineEnd(EndCause.FAILED, output)
