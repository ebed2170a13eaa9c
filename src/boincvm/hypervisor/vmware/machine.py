"""One machine of VMware's, told by `vmrun` what to do."""

import asyncio
import os
import shutil
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from boincvm.errors import BoincvmError, HypervisorError, host_error
from boincvm.host.files import create_new, remove_if_empty, sync_file_and_entry
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
from boincvm.hypervisor.life_cycle import check_can_start, check_top_layer
from boincvm.hypervisor.sealing import sealed_checkpoint
from boincvm.hypervisor.serial_line import SerialChannel
from boincvm.hypervisor.uninterrupted import uninterrupted
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
    memory_of,
    read_saved_state,
    saved_states,
)
from boincvm.hypervisor.vmware.vmdk import LayerRefusedError
from boincvm.hypervisor.vmware.vmrun import NOT_RUNNING, VMRun, VMwareError

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
    screenshots = None
    remote_desktop = None
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
        self._channel: SerialChannel | None = None
        self._restart = asyncio.Lock()
        """Held while another process takes over: see `_restarted`."""
        self._failed_restart = ""
        self._cpu_before = 0.0
        """CPU seconds of processes that ran the machine before this one."""
        self._resumed_from = source.saved if source is not None else None
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
        if self._resumed_from is not None:
            names += self._resumed_from.files
        return frozenset((*names, *(f"{name}{_LOCKS}" for name in names)))

    def usage(self) -> Usage | None:
        used = self._process.usage() if self._process is not None else None
        return used._replace(cpu_seconds=used.cpu_seconds + self._cpu_before) if used else None

    def process_ids(self) -> tuple[int, ...]:
        if self._process is None or not self._process.is_running:
            return ()
        return (self._process.pid,)

    async def create(self) -> None:
        if self.state not in (MachineState.DEFINED, MachineState.SAVED) or self.home is not None:
            return
        if self.spec.kernel is None or self.spec.initrd is None:
            raise HypervisorError("the machine was given no kernel and initrd")
        try:
            await uninterrupted(self._make_files())
        except OSError as error:
            self._remove_home()
            raise host_error("the machine cannot be made", error, HypervisorError) from error
        except BaseException:
            self._remove_home()
            raise
        if self.spec.ephemeral:
            remove_if_empty(self.spec.directory)
        if self.state is MachineState.DEFINED:
            self.state = MachineState.CREATED

    async def _make_files(self) -> None:
        home = self.home = await asyncio.to_thread(Home.make)
        directory = home.directory if self.spec.ephemeral else self.spec.directory
        disks = self._disks = await asyncio.to_thread(
            Disks, self.spec, directory, self._layers, are_frozen=self._source is not None
        )
        self._layers = disks.layers
        await asyncio.to_thread(self._define, home, disks, self._resumed_from)

    def _remove_home(self) -> None:
        if self.home is not None:
            home, self.home = self.home, None
            home.remove()

    def _define(self, home: Home, disks: Disks, saved: SavedState | None) -> None:
        """Write what VMware needs: the definition and the boot disc. Raises OSError.

        `saved`: what the machine resumes from, if it does not boot.
        """
        state = None
        if saved is not None:
            state = disks.directory / saved.state
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
        was_removed = self.state is MachineState.CREATED and self.home is None
        check_can_start(self.state, has_ended=self._process is not None or was_removed)
        await self.create()
        home = self.home
        if home is None:
            raise RuntimeError("a machine that was created has no definition")
        process = await self._start_process(home)
        self._channel = SerialChannel(process.link, process.receipts)
        return self._channel

    async def _start_process(self, home: Home) -> VmxProcess:
        """Have VMware run what is defined in `home`; the machine is paused then if it resumes."""
        boots = self._resumed_from is None
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
        return process

    async def _execute(self, home: Home, verb: str, *arguments: str) -> None:
        await self._vmrun.run(verb, str(home.definition), *arguments)

    async def _power_off(self, home: Home) -> None:
        try:
            await self._execute(home, "stop", "hard")
        except VMwareError as error:
            if NOT_RUNNING not in error.text:
                raise

    def _running(self, wanted: str) -> tuple[Home, VmxProcess]:
        if self.home is None or self._process is None or not self.state.is_active:
            raise HypervisorError(f"the machine is not running, so it cannot be {wanted}")
        return self.home, self._process

    async def pause(self) -> None:
        home, _ = self._running("paused")
        if self.state is MachineState.RUNNING:
            await uninterrupted(self._change(home, "pause", MachineState.PAUSED))

    async def resume(self) -> None:
        home, _ = self._running("resumed")
        if self.state is MachineState.PAUSED:
            await uninterrupted(self._change(home, "unpause", MachineState.RUNNING))

    async def _change(self, home: Home, verb: str, state: MachineState) -> None:
        await self._execute(home, verb)
        self.state = state

    async def checkpoint(
        self, number: int, record_layers: RecordLayers | None = None
    ) -> Checkpoint:
        """Implement `Checkpointing.checkpoint`; the guest is paused until its layers are recorded.

        VMware writes to a new layer as soon as it has taken a snapshot. With as many layers as a
        disk may have, the machine is suspended, and continues over a single one.
        """
        (home, process), disks = self._running("saved"), self._disks
        if disks is None or self.spec.ephemeral:
            raise HypervisorError("an ephemeral machine is never saved")
        if len(disks.layers) >= MOST_LAYERS:
            return await uninterrupted(self._checkpoint_by_restart(number, record_layers))
        frozen, begun = disks.layers, monotonic()
        state = await uninterrupted(
            self._freeze(home, process, disks, _SNAPSHOT.format(number), record_layers)
        )
        pause = monotonic() - begun
        saved = self._saved(disks.directory, state, frozen)
        self._checkpoint = await self._sealed(number, saved, pause)
        return self._checkpoint

    async def _freeze(
        self,
        home: Home,
        process: VmxProcess,
        disks: Disks,
        name: str,
        record_layers: RecordLayers | None,
    ) -> str:
        """Take a snapshot of the guest, which is paused meanwhile; return the state's name."""
        was = self.state
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
        return state

    async def _snapshot(self, home: Home, disks: Disks, name: str) -> str:
        """Have VMware take a snapshot; `disks` has the new layer then. Return the state's name."""
        before = saved_states(disks.directory)
        await self._execute(home, "snapshot", name)
        try:
            disks.add_existing(_top(home))
        except LayerRefusedError as error:
            raise HypervisorError(f"VMware has put no layer over the disk: {error}") from error
        return _only(saved_states(disks.directory) - before)

    async def _record(
        self, home: Home, disks: Disks, name: str, record_layers: RecordLayers
    ) -> None:
        """Have the new layer recorded; if that fails the disk is again as it was."""
        try:
            await asyncio.to_thread(sync_file_and_entry, disks.top)
            await record_layers(disks.layers)
        except BaseException:
            # With the snapshot its state goes, and the layer, to which nothing was written.
            await self._execute(home, "deleteSnapshot", name)
            disks.drop()
            self._layers = disks.layers
            if _top(home) != disks.layers[-1]:
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

    async def _sealed(self, number: int, saved: SavedState, pause: float) -> Checkpoint:
        return await sealed_checkpoint(
            number, self.spec.directory, saved.files, saved.table(), self._checkpoint, pause
        )

    async def save(self, number: int, record_layers: RecordLayers | None = None) -> Checkpoint:  # noqa: ARG002
        """Implement `Checkpointing.save`; the disk needs no new layer until it goes on."""
        if self.state is MachineState.SAVED and self._checkpoint is not None:
            return self._checkpoint
        home, process = self._running("saved")
        disks = self._disks
        if disks is None or self.spec.ephemeral:
            raise HypervisorError("an ephemeral machine is never saved")
        self._asked_to_end = True
        try:
            saved = await self._suspended(home, process, disks)
        except BaseException:
            self._asked_to_end = False
            raise
        checkpoint = await self._sealed(number, saved, 0.0)
        await self._end()
        self.state = MachineState.SAVED
        self._checkpoint = checkpoint
        return checkpoint

    async def _suspended(self, home: Home, process: VmxProcess, disks: Disks) -> SavedState:
        """Have VMware write memory and devices, and end; return what the machine resumes from."""
        _check_top(home, disks)
        before = saved_states(disks.directory)
        await self.resume()  # VMware suspends no machine that is paused
        await self._execute(home, "suspend", "hard")
        await process.wait()
        state = _only(saved_states(disks.directory) - before)
        return self._saved(disks.directory, state, disks.layers)

    async def _checkpoint_by_restart(
        self, number: int, record_layers: RecordLayers | None
    ) -> Checkpoint:
        """Suspend the machine, and have another process of VMware's continue it at once.

        The caller's link stays: its guest is quiesced.
        """
        (home, process), disks, was = self._running("saved"), self._disks, self.state
        if disks is None:
            raise RuntimeError("a machine that runs has no disks")
        async with self._restart:
            self._check_not_asked_to_end()
            used = self.usage()
            new_home = await asyncio.to_thread(Home.make)  # while it runs: it may fail
            begun = monotonic()
            if self._channel is not None:
                self._channel.hold()
            try:
                saved = await self._suspended(home, process, disks)
                refused = await self._restarted(new_home, saved, record_layers)
            except BaseException as error:
                if self._channel is not None:
                    self._channel.unhold()
                if not process.is_running:
                    self._failed_restart = str(error) or type(error).__name__
                elif was is MachineState.PAUSED:
                    await self.pause()
                if self.home is not new_home:
                    new_home.remove()
                raise
            self._cpu_before = used.cpu_seconds if used is not None else self._cpu_before
            if was is MachineState.RUNNING:
                await self.resume()
            pause = monotonic() - begun
        if refused is not None:
            for name in (saved.state, saved.memory):
                if name:
                    (disks.directory / name).unlink()
            raise refused
        self._checkpoint = await self._sealed(number, saved, pause)
        return self._checkpoint

    async def _restarted(
        self, home: Home, saved: SavedState, record_layers: RecordLayers | None
    ) -> BaseException | None:
        """Have a new process continue in `home` what was suspended, over one layer for many.

        Return why these could not be made one, or recorded, if so; it continues over the former
        ones then.
        """
        before, old_home, old_process = self._disks, self.home, self._process
        if before is None or old_home is None or old_process is None:
            raise RuntimeError("a machine that was not started is continued")
        self._check_not_asked_to_end()
        disks, refused = await self._over_one_layer(before, record_layers)
        try:
            await asyncio.to_thread(self._define, home, disks, saved)
        except OSError as error:
            raise host_error("the machine cannot be continued", error, HypervisorError) from error
        self.home, self._disks, self._layers, self._resumed_from = home, disks, disks.layers, saved
        old_process.close()
        await asyncio.to_thread(old_home.remove)
        self._check_not_asked_to_end()
        process = await self._start_process(home)
        if self._channel is not None:
            await self._channel.replace(process.link, process.receipts)
        return refused

    async def _over_one_layer(
        self, before: Disks, record_layers: RecordLayers | None
    ) -> tuple[Disks, BaseException | None]:
        """Return the disk over one layer in place of many, and have its layers recorded.

        If either fails, return the disk as it was, and why. The machine is suspended: it must not
        be lost because the host's disk is full.
        """
        try:
            disks = await asyncio.to_thread(before.over_frozen)
        except BoincvmError as error:
            return before, error
        try:
            if record_layers is not None:
                for name in disks.layers:
                    await asyncio.to_thread(sync_file_and_entry, disks.directory / name)
                await record_layers(disks.layers)
        except BaseException as error:
            for name in set(disks.layers) - set(before.layers):
                (disks.directory / name).unlink()
            if isinstance(error, OSError):
                return before, host_error("the machine cannot be saved", error, HypervisorError)
            return before, error
        return disks, None

    def _check_not_asked_to_end(self) -> None:
        if self._asked_to_end:
            raise HypervisorError("the machine was ended while it was being saved")

    async def stop(self) -> None:
        self._asked_to_end = True
        await self._end()
        if self.state.is_active:
            self.state = MachineState.STOPPED

    async def _end(self) -> None:
        """End the machine if it runs, and release everything but its disk. Idempotent."""
        if self._process is not None:
            await self._process.power_off()
        async with self._restart:  # it ends by itself, or another process runs the machine then
            if self._process is not None:
                await self._process.power_off()
                self._process.close()
            self._disks = None
            await asyncio.to_thread(self._remove_home)
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
        while True:
            process = self._process
            end = await process.ended()
            async with self._restart:
                if process is self._process:
                    break
        if self._asked_to_end:
            return MachineEnd(EndCause.ASKED, "")
        if self._failed_restart:
            reason = f"VMware did not continue it after a checkpoint: {self._failed_restart}"
            return MachineEnd(EndCause.FAILED, reason)
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


def _top(home: Home) -> str:
    """Return the name of the layer that the guest writes to. Raises OSError."""
    return Path(parse(home.read_definition()).get(DISK_FILE.lower(), "")).name


def _check_top(home: Home, disks: Disks) -> None:
    """Raise HypervisorError unless the guest writes to the topmost layer that `disks` knows."""
    try:
        top = _top(home)
    except OSError as error:
        raise host_error("the machine cannot be saved", error, HypervisorError) from error
    check_top_layer("VMware", is_known=top == disks.layers[-1])


def _only(states: set[str]) -> str:
    if len(states) != 1:
        raise HypervisorError(f"VMware has written {len(states)} saved states, not one")
    return states.pop()


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
