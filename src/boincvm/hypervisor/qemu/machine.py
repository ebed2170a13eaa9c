"""A machine that is one QEMU process, controlled by QMP over an inherited socket pair."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from subprocess import SubprocessError
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from boincvm.errors import HypervisorError, HypervisorKilledError
from boincvm.host.files import KEEPS_UNLINKED, remove_if_empty
from boincvm.host.locks import ARE_INHERITED
from boincvm.host.process_tree import own_usage
from boincvm.host.virtualization import HAS_MEMORY_FILES
from boincvm.hypervisor import contract
from boincvm.hypervisor.channel import Channel, SocketChannel
from boincvm.hypervisor.console import Console
from boincvm.hypervisor.contract import (
    DISPLAY_SOCKET,
    Checkpoint,
    EndCause,
    GuestMemory,
    MachineEnd,
    MachineSpec,
    MachineState,
    RecordLayers,
    Usage,
)
from boincvm.hypervisor.disk_lock import FILE as DISK_LOCK
from boincvm.hypervisor.disk_lock import DiskLock
from boincvm.hypervisor.disks import TRANSFER_DISK, TransferDiskFile, disk_failure, open_files
from boincvm.hypervisor.process_end import end_by_signal
from boincvm.hypervisor.qemu.balloon import ASK_PERIOD, Balloon
from boincvm.hypervisor.qemu.checkpoint import OnStep
from boincvm.hypervisor.qemu.command import NETWORK_CARD, has_hpet
from boincvm.hypervisor.qemu.identity import known_machine_types
from boincvm.hypervisor.qemu.launch import Launch
from boincvm.hypervisor.qemu.monitor import Monitor
from boincvm.hypervisor.qemu.process import LOG as LOG
from boincvm.hypervisor.qemu.process import QemuProcess
from boincvm.hypervisor.qemu.saving import Saving
from boincvm.hypervisor.qemu.start_source import (
    GOLDEN_STATE,
    Restored,
    StartSource,
    save_golden,
)
from boincvm.hypervisor.qemu.stream import with_machine_type
from boincvm.hypervisor.qemu.target import TARGETS, Target
from boincvm.hypervisor.uninterrupted import uninterrupted

if TYPE_CHECKING:
    from boincvm.hypervisor.qemu.prestarted import StartedProcess
    from boincvm.job.model import PortForward

T = TypeVar("T")

_GONE_LIMIT = 10.0
"""Seconds within which a QEMU that has closed its monitor is gone, even on a busy host."""


def _ignore(_step: str) -> None:
    """Do nothing when a step is done."""


def _name_machine_type(state: Path, kind: str, target: Target) -> None:
    """Write the machine type into a saved state of devices. Raises OSError."""
    named = with_machine_type(state.read_bytes(), kind, has_page_size=target.has_page_size)
    state.write_bytes(named)


class QemuDisplay(NamedTuple):
    """The `contract.Display` of QEMU."""

    socket: Path


class QemuMachine:
    """One QEMU process and its files: root disk layers, `transfer-disk`, checkpoints.

    It implements all the optional abilities itself.
    """

    def __init__(
        self,
        spec: MachineSpec,
        accelerator: str,
        begin: Callable[[], StartSource],
        *,
        checkpoint: Checkpoint | None = None,
        is_clone: bool = False,
        is_freezable: bool = False,
        started: "StartedProcess | None" = None,
        on_step: OnStep = _ignore,
    ) -> None:
        """Define the machine; `checkpoint` is its checkpoint, `started` its process if that runs.

        `on_step` is called with each step of a checkpoint.
        """
        self.spec = spec
        self._on_step = on_step
        self.state = MachineState.SAVED if checkpoint or is_clone else MachineState.DEFINED
        self._accelerator = accelerator
        self._make_source = begin
        self._source: StartSource | None = None
        self._launch = Launch(())
        self._layers: tuple[str, ...] = ()
        self._checkpoint = checkpoint
        self._is_freezable = is_freezable
        self._process: QemuProcess | None = None
        self._started = started
        if started is not None:
            self._source, self._process = started.source, started.process
            self._launch, self._layers = started.launch, started.launch.layers
        self._monitor: Monitor | None = None
        self._console: Console | None = None
        self._asked_to_end = False
        self._root_server: asyncio.Future[None] | None = None
        self._root_fault = ""
        """Why QEMU was ended that read its root disk on demand."""
        self._unlinked: tuple[int, ...] = ()
        """Descriptors of the root disk's layers once they have no name any more."""

    @property
    def checkpointing(self) -> contract.Checkpointing | None:
        return self if self.spec.gpu is None else None

    @property
    def freezing(self) -> contract.Freezing | None:
        return self if self._is_freezable else None

    @property
    def balloon(self) -> contract.Balloon | None:
        return self if self.spec.balloon else None

    @property
    def network(self) -> contract.NetworkCard | None:
        return self if self.spec.network else None

    @property
    def forwards(self) -> "tuple[PortForward, ...]":
        return self.spec.forwards

    @property
    def display(self) -> contract.Display | None:
        if not self.spec.display or not TARGETS[self.spec.architecture].display_options:
            return None
        return QemuDisplay(self.spec.directory / DISPLAY_SOCKET)

    @property
    def remote_desktop(self) -> None:
        return None

    @property
    def screenshots(self) -> contract.Screenshots | None:
        return self if self.display is not None else None

    async def take_screenshot(self, target: Path) -> None:
        monitor = self._running("its screen cannot be captured")
        await monitor.execute("screendump", {"filename": str(target), "format": "png"})

    @property
    def transfer_disk(self) -> contract.TransferDisk | None:
        transfer_disk = self._process.transfer_disk if self._process else -1
        return TransferDiskFile(transfer_disk) if transfer_disk >= 0 else None

    @property
    def root_disk(self) -> contract.RootDisk | None:
        is_whole = self.spec.root_source is None
        return self if self._process is not None and is_whole else None

    def open_reader(self) -> contract.DiskReader:
        from boincvm.hypervisor.disk_reader import open_disk  # only for large files

        root = (self.spec.root, self.spec.root_format)
        if self._unlinked:
            return open_disk([os.dup(layer) for layer in self._unlinked], *root)
        return open_disk(self._open_layers(), *root)

    def _open_layers(self) -> list[int]:
        """Open the files of the root disk's layers, the lowest first. Raises OSError."""
        return open_files(self.spec.directory / name for name in self._layers)

    def usage(self) -> Usage | None:
        pids = self.process_ids()
        return Usage(*own_usage(pids[0])) if pids else None

    def process_ids(self) -> tuple[int, ...]:
        if self._process is None or not self._process.child.is_running:
            return ()
        return (self._process.child.pid,)

    async def create(self) -> None:
        if self.state is not MachineState.DEFINED:
            return
        self._prepare()
        self.state = MachineState.CREATED

    def _prepare(self) -> StartSource:
        source = self._source
        if source is None:
            source = self._source = self._make_source()
            try:
                self._launch = source.prepare(self.spec)
                self._layers = self._launch.layers
            except BaseException:
                self._close_source()
                raise
        return source

    async def start(self) -> Channel:
        if self.state.is_active:
            raise HypervisorError("the machine is already running, and its link is in use")
        if self.state is MachineState.DESTROYED:
            raise HypervisorError("the machine was destroyed, so it cannot start")
        await self.create()
        source = self._prepare()
        try:
            process = self._process = await self._take_process(source)
            self._asked_to_end = False
            process.watch_output()
            try:
                qmp, link, console = process.connect()
            except BaseException:
                await self.stop()
                raise
            self._console = Console(console)
            try:
                self._serve_root(process)
                await self._begin(process, source, qmp)
            except BaseException:
                link.close()
                raise
        finally:
            self._close_source()
        stands_still = self._launch.stands_still
        self.state = MachineState.PAUSED if stands_still else MachineState.RUNNING
        return SocketChannel(link)

    def _serve_root(self, process: QemuProcess) -> None:
        """Serve QEMU the root disk, if it reads that on demand."""
        source, connection = self.spec.root_source, process.connect_root()
        if source is None or connection is None:
            return

        from boincvm.hypervisor.qemu.block_server import serve_blocks  # rarely needed

        async def serve() -> None:
            try:
                await serve_blocks(connection, source)
            except Exception as error:  # or the guest would wait for its disk for ever
                cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                self._root_fault = f"its disk could not be read on demand: {cause}"
                process.child.kill()

        self._root_server = asyncio.ensure_future(serve())

    async def _take_process(self, source: StartSource) -> QemuProcess:
        started, self._started = self._started, None
        if started is not None:
            return started.process
        if not self.spec.durable or not ARE_INHERITED:
            return self._new_process(source.descriptors)
        lock = await DiskLock.take(self.spec.directory)
        try:
            process = self._new_process((*source.descriptors, lock.descriptor))
            lock.note(process.child.pid)
        finally:
            lock.close()
        return process

    def _new_process(self, descriptors: tuple[int, ...]) -> QemuProcess:
        return QemuProcess(self.spec, self._accelerator, self._launch, descriptors)

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    async def _begin(self, process: QemuProcess, source: StartSource, qmp: socket.socket) -> None:
        """Load the saved state once QEMU answers, and unlink its files."""
        try:
            self._monitor = await Monitor.open(qmp, process.child.pid)
            await self._while_it_lives("loading its state", source.load(self._monitor))
        except HypervisorError as error:
            end = await self._end_of_start(process)
            reason = process.last_output() or error
            await self.stop()
            if end is not None and end.cause is EndCause.KILLED:
                raise HypervisorKilledError(
                    f"QEMU was killed while it started: {end.detail}",
                    hint="the host may have run out of memory: see its system log",
                ) from error
            self._check_machine_type()
            raise HypervisorError(
                f"QEMU did not start: {reason}",
                hint="`boincvm doctor` tests this host",
            ) from error
        if self.spec.ephemeral and KEEPS_UNLINKED:
            self._unlinked = tuple(self._open_layers())
            self._unlink_files()
            remove_if_empty(self.spec.directory)

    def _check_machine_type(self) -> None:
        """Raise HypervisorError if the machine's type is too new for this QEMU."""
        kind, target = self._launch.machine, TARGETS[self.spec.architecture]
        if not kind:
            return
        try:
            known = known_machine_types(target)
        except (OSError, SubprocessError):
            return  # QEMU's own error tells more
        if kind not in known:
            raise HypervisorError(
                f"a newer QEMU has saved the machine: this one does not know the type {kind}",
                hint="install the QEMU that it was saved with, or a newer one",
            )

    async def _end_of_start(self, process: QemuProcess) -> MachineEnd | None:
        """Return how a QEMU ended that did not start; end it and return None if it still runs."""
        if self._monitor is None or self._monitor.is_gone:
            with suppress(TimeoutError):
                async with asyncio.timeout(_GONE_LIMIT):
                    await process.child.wait()
            if not process.child.is_running:
                return _end_of_process(await process.child.wait(), process)
        process.child.kill()
        await process.child.wait()
        return None

    def _unlink_files(self) -> None:
        for name in (*self._layers, TRANSFER_DISK, LOG, DISK_LOCK):
            if Path(name).name == name:  # a golden snapshot's file is not ours
                (self.spec.directory / name).unlink(missing_ok=True)

    def _running(self, wanted: str) -> Monitor:
        if self._monitor is None:
            raise HypervisorError(f"the machine is not running, so {wanted}")
        return self._monitor

    async def _execute(self, command: str) -> None:
        await self._running(f"{command} failed").execute(command)

    async def _while_it_lives(self, what: str, work: Coroutine[None, None, T]) -> T:
        """Return the result of `work`; raise HypervisorError if QEMU ends in the meantime."""
        task = asyncio.ensure_future(work)
        if self._process is None:
            raise RuntimeError("there is no process")
        end = asyncio.ensure_future(self._process.child.wait())
        try:
            await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                if self._monitor is not None:
                    await self._monitor.close()  # or its callers would wait for answers
                raise HypervisorError(f"QEMU ended in the middle of {what}")
            return task.result()
        finally:
            task.cancel()
            end.cancel()
            await asyncio.gather(task, end, return_exceptions=True)

    async def pause(self) -> None:
        if self.state is not MachineState.PAUSED:
            await uninterrupted(self._change("stop", MachineState.PAUSED))

    async def resume(self) -> None:
        if self.state is not MachineState.RUNNING:
            await uninterrupted(self._change("cont", MachineState.RUNNING))

    async def _change(self, command: str, state: MachineState) -> None:
        await self._execute(command)
        self.state = state

    async def connect(self, *, connected: bool) -> None:
        if self._monitor is not None:
            await self._monitor.execute("set_link", {"name": NETWORK_CARD, "up": connected})

    async def set_memory(self, size: int) -> None:
        await self._balloon().set_size(min(size, self.spec.memory))
        if size >= self.spec.memory:
            await self._balloon().ask_every(0)

    async def memory(self) -> GuestMemory | None:
        was_asked = await self._balloon().ask_every(ASK_PERIOD)
        return await self._balloon().statistics() if was_asked else None

    def _balloon(self) -> Balloon:
        return Balloon(self._running("its memory cannot be measured"))

    async def checkpoint(
        self, number: int, record_layers: RecordLayers | None = None
    ) -> Checkpoint:
        return await self._save(number, record_layers, last=False)

    async def save(self, number: int, record_layers: RecordLayers | None = None) -> Checkpoint:
        if self.state is MachineState.SAVED and self._checkpoint is not None:
            return self._checkpoint
        checkpoint = await self._save(number, record_layers, last=True)
        self._asked_to_end = True
        await self._execute("quit")
        if self._process is not None:
            await self._process.child.wait()
        await self._release()
        self._make_source = lambda: Restored(checkpoint)
        self.state = MachineState.SAVED
        return checkpoint

    async def _save(
        self, number: int, record_layers: RecordLayers | None, *, last: bool
    ) -> Checkpoint:
        monitor = self._running("there is nothing to save")
        saving = Saving(
            self.spec,
            monitor,
            self._accelerator,
            self._launch.cpu or TARGETS[self.spec.architecture].cpus[self._accelerator],
            has_hpet(self.spec, self._accelerator, self._launch),
            self._layers,
            self._checkpoint,
            record_layers,
            self._on_step,
        )
        try:
            self._checkpoint = await self._while_it_lives(
                "a checkpoint", saving.run(number, last=last)
            )
        finally:
            self._layers = saving.layers
        return self._checkpoint

    @property
    def disk_layers(self) -> tuple[str, ...]:
        return self._layers

    def files_in_use(self) -> frozenset[str]:
        return frozenset((*self._layers, TRANSFER_DISK, LOG))

    async def freeze(self) -> None:
        if HAS_MEMORY_FILES:
            await self._freeze_devices()
        else:
            await self._freeze_all()

    async def _freeze_all(self) -> None:
        """Make a checkpoint, and leave nothing else in the directory."""
        await self.pause()
        checkpoint = await self.save(1)
        try:
            save_golden(self.spec.directory, checkpoint)
            for path in self.spec.directory.iterdir():
                if path.name not in (*checkpoint.files, GOLDEN_STATE):
                    path.unlink()
        except OSError as error:
            raise disk_failure(error) from error
        self.state = MachineState.DESTROYED  # what is left belongs to the snapshot

    async def _freeze_devices(self) -> None:
        """Save the devices' state; the memory is in a file already."""
        monitor = self._running("it cannot become a golden snapshot")
        await self.pause()
        state = self.spec.directory / GOLDEN_STATE
        where: dict[str, object] = {"filename": str(state), "live": False}
        kind = await monitor.machine_type()
        await self._while_it_lives("freezing", monitor.execute("xen-save-devices-state", where))
        await self.stop()
        try:
            _name_machine_type(state, kind, TARGETS[self.spec.architecture])
        except OSError as error:
            raise disk_failure(error) from error
        for name in (TRANSFER_DISK, LOG, DISK_LOCK):
            (self.spec.directory / name).unlink(missing_ok=True)
        self.state = MachineState.DESTROYED  # what is left belongs to the snapshot

    async def stop(self) -> None:
        if self._process is not None:
            self._asked_to_end = True
            self._process.child.kill()
            await self._process.child.wait()
            await self._release()
        self._close_source()
        if self.state.is_active:
            self.state = MachineState.STOPPED

    async def _release(self) -> None:
        """Close our ends of the channels to a process that is gone."""
        if self._root_server is not None:
            self._root_server.cancel()
            await asyncio.gather(self._root_server, return_exceptions=True)
            self._root_server = None
        if self._monitor is not None:
            await self._monitor.close()
            self._monitor = None
        if self._console is not None:
            self._console.close()
            self._console = None
        if self._process is not None:
            self._process.release()
        for layer in self._unlinked:
            os.close(layer)
        self._unlinked = ()
        if self.spec.display:
            (self.spec.directory / DISPLAY_SOCKET).unlink(missing_ok=True)

    async def destroy(self) -> None:
        if self.state is MachineState.DESTROYED:
            return
        await self.stop()
        self._unlink_files()
        for kind in ("memory-*", "disk-*.qcow2"):
            for path in self.spec.directory.glob(kind):
                path.unlink(missing_ok=True)
        self.state = MachineState.DESTROYED

    async def ended(self) -> MachineEnd:
        process, monitor = self._process, self._monitor
        if process is None:
            raise HypervisorError("the machine was never started")
        disk_full = False

        async def end_when_disk_full(monitor: Monitor) -> None:
            # QEMU has stopped the guest, and nothing would ever resume it.
            nonlocal disk_full
            await monitor.disk_full()
            disk_full = True
            process.child.kill()

        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(end_when_disk_full(monitor)) if monitor else None
            status = await process.child.wait()
            if watcher is not None:
                watcher.cancel()
        if self._asked_to_end:
            return MachineEnd(EndCause.ASKED, "")
        if self._root_fault:
            return MachineEnd(EndCause.FAILED, self._root_fault)
        if disk_full:
            return MachineEnd(EndCause.HOST_DISK_FULL, "the host's disk is full")
        if status != 0:
            return _end_of_process(status, process)
        panic = self._console.panic_line() if self._console else ""
        return MachineEnd(EndCause.PANICKED if panic else EndCause.POWERED_OFF, panic)


def _end_of_process(status: int, process: QemuProcess) -> MachineEnd:
    """Return the end of a QEMU that ended with this exit status, or by minus this signal."""
    if status < 0:
        return end_by_signal(-status, "QEMU")
    return MachineEnd(EndCause.FAILED, process.last_output() or f"QEMU ended with {status}")
