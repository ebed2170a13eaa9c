"""The User-mode Linux driver: the kernel is a program, its processes share one namespace."""

import os
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import HypervisorError
from boincvm.host.files import free_space, open_descriptor, remove_if_empty
from boincvm.hypervisor.channel import Channel
from boincvm.hypervisor.console import Console
from boincvm.hypervisor.contract import (
    EndCause,
    MachineEnd,
    MachineSpec,
    MachineState,
    Usage,
)
from boincvm.hypervisor.serial_line import SerialChannel
from boincvm.hypervisor.uml import command
from boincvm.hypervisor.uml.disks import DISK, WINDOW, Disks
from boincvm.hypervisor.uml.process import UmlProcess
from boincvm.sizes import format_size

_MEMORY = Path("/dev/shm")  # noqa: S108 - it is the kernel that chooses this place
"""Where a User-mode Linux keeps its guest's memory, in a nameless file."""
_RUNS = (MachineState.RUNNING, MachineState.PAUSED)


class UmlDriver:
    """Makes machines on User-mode Linux."""

    name = "uml"
    has_firmware = False
    most_cpus = 1
    saved_machines = None
    golden_snapshots = None

    def machine(self, spec: MachineSpec) -> "UmlMachine":
        return UmlMachine(spec)


def _check_room(memory: int) -> None:
    """Raise HypervisorError if the host has too little room for the guest's memory.

    The guest would otherwise crash at some later moment.
    """
    if _MEMORY.is_dir() and (free := free_space(_MEMORY)) < memory:
        raise HypervisorError(
            f"a machine's memory of {format_size(memory)} lies in {_MEMORY}, "
            f"where {format_size(free)} are free",
            hint=f"give it less with --memory, or, as root: mount -o remount,size=80% {_MEMORY}",
        )


class TransferDisk(NamedTuple):
    """The `contract.TransferDisk` of a User-mode Linux."""

    descriptor: int


class UmlMachine:
    """A machine that is a User-mode Linux and its two disk files."""

    checkpointing = None
    freezing = None
    balloon = None
    network = None
    display = None

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self.state = MachineState.DEFINED
        self._disks: Disks | None = None
        self._process: UmlProcess | None = None
        self._console: Console | None = None
        self._asked_to_end = False

    @property
    def transfer_disk(self) -> TransferDisk | None:
        return TransferDisk(self._disks.window) if self._disks is not None else None

    @property
    def disk_layers(self) -> tuple[str, ...]:
        return () if self.spec.ephemeral else (DISK,)

    def files_in_use(self) -> frozenset[str]:
        return frozenset() if self.spec.ephemeral else frozenset((DISK, WINDOW))

    def usage(self) -> Usage | None:
        return self._process.usage() if self._process is not None else None

    def process_ids(self) -> tuple[int, ...]:
        kernel = self._process.kernel if self._process is not None else None
        return () if kernel is None else (kernel,)

    async def create(self) -> None:
        if self.state is MachineState.DEFINED:
            _check_room(self.spec.memory)
            self._disks = Disks(self.spec)
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
        if self.spec.initrd is None:
            raise HypervisorError("User-mode Linux has no firmware, and was given no initrd")
        initrd = open_descriptor(self.spec.initrd)
        try:
            process = self._process = UmlProcess(
                lambda link, receipts: command.machine_command(
                    self.spec,
                    initrd=initrd,
                    disk=disks.root,
                    window=disks.window,
                    link=link,
                    receipts=receipts,
                ),
                Path("/"),
                (initrd, disks.root, disks.window),
            )
        finally:
            os.close(initrd)
        if self.spec.ephemeral:
            remove_if_empty(self.spec.directory)
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
        if self.state in _RUNS:
            self.state = MachineState.STOPPED

    async def destroy(self) -> None:
        await self.stop()
        if self.state is not MachineState.DESTROYED:
            for name in (DISK, WINDOW):
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
        words = console.last_output()
        if words and not words.startswith("unshare: "):  # which cannot die the way its child died
            return MachineEnd(EndCause.FAILED, words)
        return MachineEnd(EndCause.KILLED, "User-mode Linux was ended by a signal")
