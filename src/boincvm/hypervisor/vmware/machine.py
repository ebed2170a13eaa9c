"""One machine of VMware's, told by `vmrun` what to do."""

import asyncio
import os
import shutil
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from boincvm.errors import HypervisorError, host_error
from boincvm.host.files import create_new, remove_if_empty, sync_directory, sync_file
from boincvm.host.resources import processor_name
from boincvm.hypervisor.boot_disc import write_boot_disc
from boincvm.hypervisor.channel import Channel
from boincvm.hypervisor.contract import (
    Checkpoint,
    Checkpointing,
    EndCause,
    MachineEnd,
    MachineSpec,
    MachineState,
    RecordLayers,
    Usage,
)
from boincvm.hypervisor.serial_line import SerialChannel
from boincvm.hypervisor.vmware.definition import (
    CONSOLE_PORT,
    DISK_FILE,
    LINES,
    SAVED_STATE,
    Definition,
    definition,
    kernel_arguments,
    parse,
)
from boincvm.hypervisor.vmware.disks import BASE_FILES, MOST_LAYERS, Disks
from boincvm.hypervisor.vmware.home import Home
from boincvm.hypervisor.vmware.installation import Product
from boincvm.hypervisor.vmware.process import VmxProcess
from boincvm.hypervisor.vmware.saved import (
    SavedState,
    describe,
    memory_of,
    read_saved_state,
    saved_states,
)
from boincvm.hypervisor.vmware.vmdk import LayerRefusedError
from boincvm.hypervisor.vmware.vmrun import NOT_RUNNING, VMRun, VMwareError

_RUNS = (MachineState.RUNNING, MachineState.PAUSED)
_SNAPSHOT = "checkpoint-{:06d}"
_LOCKS = ".lck"
"""What VMware adds to a file's name for the directory that says who has it open."""


class Source(NamedTuple):
    """What a machine goes on from, in its directory."""

    saved: SavedState
    checkpoint: Checkpoint


class VMwareMachine:
    """A machine that boots, or goes on from `source`."""

    balloon = None
    display = None
    freezing = None
    network = None
    transfer_disk = None
    root_disk = None

    def __init__(self, spec: MachineSpec, vmrun: VMRun, source: Source | None = None) -> None:
        self.spec = spec
        self.state = MachineState.DEFINED if source is None else MachineState.SAVED
        self.home: Home | None = None
        """Where VMware finds it, from `create` to its end."""
        self._vmrun = vmrun
        self._source = source
        self._disks: Disks | None = None
        self._process: VmxProcess | None = None
        self._asked_to_end = False
        self._layers = spec.layers if source is None else source.saved.layers
        self._checkpoint = source.checkpoint if source is not None else None

    @property
    def checkpointing(self) -> Checkpointing | None:
        """None for Player, which takes no snapshots."""
        return self if self._vmrun.product is not Product.PLAYER else None

    @property
    def disk_layers(self) -> tuple[str, ...]:
        return () if self.spec.ephemeral else self._layers

    def files_in_use(self) -> frozenset[str]:
        if self.spec.ephemeral:
            return frozenset()
        names = [*BASE_FILES, *self._layers]
        if self._source is not None:
            names += self._source.saved.files
        return frozenset((*names, *(f"{name}{_LOCKS}" for name in names)))

    def usage(self) -> Usage | None:
        return self._process.usage() if self._process is not None else None

    def process_ids(self) -> tuple[int, ...]:
        if self._process is None or not self._process.is_running:
            return ()
        return (self._process.pid,)

    async def create(self) -> None:
        if self.state not in (MachineState.DEFINED, MachineState.SAVED) or self.home is not None:
            return
        if self.spec.kernel is None or self.spec.initrd is None:
            raise HypervisorError("the machine was given no kernel and initrd")
        home = self.home = await asyncio.to_thread(Home.make)
        try:
            directory = home.directory if self.spec.ephemeral else self.spec.directory
            disks = self._disks = await asyncio.to_thread(
                Disks, self.spec, directory, self._layers, are_frozen=self._source is not None
            )
            self._layers = disks.layers
            await asyncio.to_thread(self._define, home, disks)
        except OSError as error:
            home.remove()
            self.home = None
            raise host_error("the machine cannot be made", error, HypervisorError) from error
        except BaseException:
            home.remove()
            self.home = None
            raise
        if self.spec.ephemeral:
            remove_if_empty(self.spec.directory)
        if self.state is MachineState.DEFINED:
            self.state = MachineState.CREATED

    def _define(self, home: Home, disks: Disks) -> None:
        """Write what VMware needs: the definition and the boot disc. Raises OSError."""
        state = None
        if self._source is not None:
            state = disks.directory / self._source.saved.state
        elif self.spec.kernel is not None and self.spec.initrd is not None:
            write_boot_disc(
                home.boot_disc,
                self.spec.kernel,
                self.spec.initrd,
                kernel_arguments(self.spec),
                mark_port=CONSOLE_PORT,
            )
        sockets = tuple(home.socket_path(line) for line in LINES)
        machine = Definition(home.name, disks.directory, disks.top, home.boot_disc, sockets, state)
        with create_new(home.definition) as file:
            file.write(definition(self.spec, machine).encode("utf-8", "surrogateescape"))

    async def start(self) -> Channel:
        if self.state in _RUNS:
            raise HypervisorError("the machine is already running, and its link is taken")
        if self._process is not None or self.state in (
            MachineState.STOPPED,
            MachineState.DESTROYED,
        ):
            raise HypervisorError("the machine has ended, so it cannot start again")
        await self.create()
        home = self.home
        if home is None:
            raise HypervisorError("the machine has ended, so it cannot start again")
        boots = self._source is None
        try:
            process = await VmxProcess.start(
                home,
                lambda: self._execute(home, "start", "nogui"),
                lambda: self._power_off(home),
                boots=boots,
            )
        except OSError as error:
            raise host_error("VMware cannot be started", error, HypervisorError) from error
        self._process = process
        self.state = MachineState.RUNNING
        if not boots:
            # VMware has no word for a start that pauses; the guest is quiesced meanwhile.
            await self.pause()
        return SerialChannel(process.link, process.receipts)

    async def _execute(self, home: Home, verb: str, *arguments: str) -> None:
        await self._vmrun.run(verb, str(home.definition), *arguments)

    async def _power_off(self, home: Home) -> None:
        try:
            await self._execute(home, "stop", "hard")
        except VMwareError as error:
            if NOT_RUNNING not in error.text:
                raise

    def _running(self, wanted: str) -> tuple[Home, VmxProcess]:
        if self.home is None or self._process is None or self.state not in _RUNS:
            raise HypervisorError(f"the machine is not running, so it cannot be {wanted}")
        return self.home, self._process

    async def pause(self) -> None:
        home, _ = self._running("paused")
        if self.state is MachineState.RUNNING:
            await self._execute(home, "pause")
            self.state = MachineState.PAUSED

    async def resume(self) -> None:
        home, _ = self._running("resumed")
        if self.state is MachineState.PAUSED:
            await self._execute(home, "unpause")
            self.state = MachineState.RUNNING

    async def checkpoint(
        self, number: int, record_layers: RecordLayers | None = None
    ) -> Checkpoint:
        """Implement `Checkpointing.checkpoint`; the guest is paused until its layers are recorded.

        VMware writes to a new layer as soon as it has taken a snapshot.
        """
        (home, process), was = self._running("saved"), self.state
        disks, begun = self._disks, monotonic()
        if disks is None or self.spec.ephemeral:
            raise HypervisorError("an ephemeral machine is never saved")
        if len(disks.layers) >= MOST_LAYERS:
            raise HypervisorError(f"the machine's disk has {MOST_LAYERS} layers already")
        frozen, name = disks.layers, _SNAPSHOT.format(number)
        await self.pause()
        try:
            state = await self._snapshot(home, disks, name)
            self._layers = disks.layers
            if record_layers is not None:
                await self._record(home, disks, name, record_layers)
        except OSError as error:
            raise host_error("the machine cannot be saved", error, HypervisorError) from error
        finally:
            if was is MachineState.RUNNING and process.is_running:
                await self.resume()
        saved = self._saved(disks.directory, state, frozen)
        pause = monotonic() - begun
        self._checkpoint = await describe(number, disks.directory, saved, pause, self._checkpoint)
        return self._checkpoint

    async def _snapshot(self, home: Home, disks: Disks, name: str) -> str:
        """Have VMware take a snapshot; `disks` has the new layer then. Return the state's name."""
        before = saved_states(disks.directory)
        await self._execute(home, "snapshot", name)
        top = Path(parse(home.read_definition()).get(DISK_FILE.lower(), ""))
        try:
            disks.take(top.name)
        except LayerRefusedError as error:
            raise HypervisorError(f"VMware has put no layer over the disk: {error}") from error
        return _only(saved_states(disks.directory) - before)

    async def _record(
        self, home: Home, disks: Disks, name: str, record_layers: RecordLayers
    ) -> None:
        """Have the new layer recorded; if that fails the disk is again as it was."""
        try:
            await asyncio.to_thread(_sync, disks.top)
            await record_layers(disks.layers)
        except BaseException:
            # With the snapshot its state goes, and the layer, to which nothing was written.
            await self._execute(home, "deleteSnapshot", name)
            top = Path(parse(home.read_definition()).get(DISK_FILE.lower(), ""))
            disks.drop()
            self._layers = disks.layers
            if top.name != disks.layers[-1]:
                raise HypervisorError(
                    "VMware did not go back to the disk as it was recorded"
                ) from None
            raise

    def _saved(self, directory: Path, state: str, layers: tuple[str, ...]) -> SavedState:
        memory = memory_of(state)
        return SavedState(
            str(self._vmrun.version),
            self._vmrun.product,
            processor_name(),
            state,
            memory if (directory / memory).exists() else "",
            layers,
        )

    async def save(self, number: int, record_layers: RecordLayers | None = None) -> Checkpoint:  # noqa: ARG002
        """Implement `Checkpointing.save`; the disk needs no new layer until it goes on."""
        if self.state is MachineState.SAVED and self._checkpoint is not None:
            return self._checkpoint
        home, process = self._running("saved")
        disks, directory = self._disks, self.spec.directory
        if disks is None or self.spec.ephemeral:
            raise HypervisorError("an ephemeral machine is never saved")
        before = saved_states(directory)
        await self.resume()  # VMware suspends no machine that is paused
        self._asked_to_end = True
        try:
            await self._execute(home, "suspend", "hard")
        except BaseException:
            self._asked_to_end = False
            raise
        await process.wait()
        saved = self._saved(directory, _only(saved_states(directory) - before), disks.layers)
        checkpoint = await describe(number, directory, saved, 0.0, self._checkpoint)
        await self._end()
        self.state = MachineState.SAVED
        self._checkpoint = checkpoint
        return checkpoint

    async def stop(self) -> None:
        self._asked_to_end = True
        await self._end()
        if self.state in _RUNS:
            self.state = MachineState.STOPPED

    async def _end(self) -> None:
        """End the machine if it runs, and let go of everything but its disk. Idempotent."""
        if self._process is not None:
            await self._process.power_off()
            self._process.close()
        self._disks = None
        if self.home is not None:
            home, self.home = self.home, None
            await asyncio.to_thread(home.remove)
        if not self.spec.ephemeral:
            await asyncio.to_thread(_remove_locks, self.spec.directory, self._layers)

    async def destroy(self) -> None:
        if self.state is MachineState.DESTROYED:
            return
        await self.stop()
        if not self.spec.ephemeral:
            await asyncio.to_thread(_remove_files, self.spec.directory)
        self.state = MachineState.DESTROYED

    async def ended(self) -> MachineEnd:
        if self._process is None:
            raise HypervisorError("the machine was never started")
        end = await self._process.ended()
        if self._asked_to_end:
            return MachineEnd(EndCause.ASKED, "")
        if end.cause is EndCause.POWERED_OFF and self._is_suspended():
            return MachineEnd(EndCause.KILLED, "somebody else suspended the machine in VMware")
        return end

    def _is_suspended(self) -> bool:
        if self.home is None:
            return False
        try:
            return bool(parse(self.home.read_definition()).get(SAVED_STATE.lower()))
        except FileNotFoundError:  # somebody has removed it
            return False


def _only(states: set[str]) -> str:
    if len(states) != 1:
        raise HypervisorError(f"VMware has written {len(states)} saved states, and not one")
    return states.pop()


def _sync(path: Path) -> None:
    """Sync the file and its directory entry to the disk. Raises OSError."""
    sync_file(path)
    sync_directory(path.parent)


def _remove_locks(directory: Path, layers: tuple[str, ...]) -> None:
    """Remove VMware's own locks of a disk that nothing has open any more: it was killed."""
    for name in (*BASE_FILES, *layers):
        shutil.rmtree(directory / f"{name}{_LOCKS}", ignore_errors=True)


def _remove_files(directory: Path) -> None:
    """Remove all files of a machine that has ended. Raises OSError."""
    for kind in ("*.vmdk", "*.vmss", "*.vmsn", "*.vmem"):
        for path in directory.glob(kind):
            path.unlink(missing_ok=True)
            shutil.rmtree(f"{os.fspath(path)}{_LOCKS}", ignore_errors=True)
    for name in BASE_FILES:
        (directory / name).unlink(missing_ok=True)


def source_of(checkpoint: Checkpoint) -> Source:
    """Return what a machine goes on from. Raises HypervisorError."""
    return Source(read_saved_state(checkpoint), checkpoint)
