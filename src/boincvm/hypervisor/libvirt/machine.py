"""A machine that is a transient domain of libvirt, which ends with our connection to it."""

import asyncio
import socket
import time
import uuid
from contextlib import ExitStack

import libvirt

from boincvm.errors import HypervisorError, HypervisorKilledError, host_error
from boincvm.host.files import remove_if_empty
from boincvm.host.process_tree import own_usage
from boincvm.host.processes import DeathGuard
from boincvm.host.resources import processor_name
from boincvm.host.sockets import peer_process
from boincvm.hypervisor import contract
from boincvm.hypervisor.channel import Channel, SocketChannel
from boincvm.hypervisor.console import Console
from boincvm.hypervisor.contract import (
    Checkpoint,
    EndCause,
    GuestMemory,
    MachineEnd,
    MachineSpec,
    MachineState,
    Usage,
)
from boincvm.hypervisor.disks import TransferDiskFile, disk_errors, share_file
from boincvm.hypervisor.libvirt.connection import (
    ANSWER_LIMIT,
    SAVE_LIMIT,
    START_LIMIT,
    Connection,
    LibvirtError,
    call,
)
from boincvm.hypervisor.libvirt.definition import (
    NEWEST_TYPE,
    REPORT_PERIOD,
    Domain,
    card,
    definition,
)
from boincvm.hypervisor.libvirt.disks import MANY_LAYERS, Disks, unlink_files
from boincvm.hypervisor.libvirt.forwarding import forward_ports
from boincvm.hypervisor.libvirt.golden import write_golden, write_renamed
from boincvm.hypervisor.libvirt.home import CONSOLE, LINK, Home
from boincvm.hypervisor.libvirt.merging import merge_layers
from boincvm.hypervisor.libvirt.saved import SavedState, Source, Versions
from boincvm.hypervisor.libvirt.saving import (
    check_top,
    machine_type,
    take_snapshot,
    write_memory,
)
from boincvm.hypervisor.libvirt.uri import FORWARDS, SAVES, Uri
from boincvm.hypervisor.libvirt.watch import Watch
from boincvm.hypervisor.life_cycle import check_can_start
from boincvm.hypervisor.listeners import accepting, listen_at
from boincvm.hypervisor.saved_state import memory_name
from boincvm.hypervisor.sealing import sealed_checkpoint
from boincvm.hypervisor.uninterrupted import uninterrupted
from boincvm.job.model import PortForward
from boincvm.side_thread import in_side_thread

_ENDED_ALREADY = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
_CONNECT_LIMIT = 20.0
"""Seconds within which a hypervisor that has started has connected the link and the console."""


class LibvirtMachine:
    """A domain and its files: the root disk's layers and `transfer-disk`."""

    display = None
    screenshots = None
    remote_desktop = None

    def __init__(
        self,
        spec: MachineSpec,
        uri: Uri,
        versions: Versions,
        source: Source | None = None,
        *,
        is_freezable: bool = False,
    ) -> None:
        """Make a machine that boots, or starts from `source`."""
        self.spec = spec
        self.state = MachineState.DEFINED if source is None else MachineState.SAVED
        self._uri = uri
        self._versions = versions
        self._checkpoint = source.checkpoint if source is not None else None
        self._saved = source.saved if source is not None else None
        self._golden = source.directory if source and source.checkpoint is None else None
        """The directory of the golden snapshot that it is to be a copy of."""
        self._is_freezable = is_freezable
        self._names: tuple[str, str] | None = None
        self._guard: DeathGuard | None = None
        self._disks: Disks | None = None
        self._home: Home | None = None
        self._connection: Connection | None = None
        self._restoring: asyncio.Task[None] | None = None
        self._watch: Watch | None = None
        self._console: Console | None = None
        self._asked_to_end = False
        self._is_connected = True
        self._reports_memory = False

    @property
    def checkpointing(self) -> contract.Checkpointing | None:
        return self if self._uri.hypervisor == SAVES else None

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
    def forwards(self) -> tuple[PortForward, ...]:
        """Implement `NetworkCard.forwards`."""
        return self.spec.forwards if self._uri.hypervisor == FORWARDS else ()

    @property
    def transfer_disk(self) -> contract.TransferDisk | None:
        transfer_disk = self._disks.transfer_disk if self._disks is not None else -1
        return TransferDiskFile(transfer_disk) if transfer_disk >= 0 else None

    @property
    def root_disk(self) -> contract.RootDisk | None:
        return self._disks if self._uri.hypervisor == SAVES else None

    @property
    def disk_layers(self) -> tuple[str, ...]:
        if self.spec.ephemeral:
            return ()
        if self._disks is None:
            return self._saved.layers if self._saved is not None else ()
        return self._disks.names

    def files_in_use(self) -> frozenset[str]:
        if self.spec.ephemeral or self._disks is None:
            return frozenset()
        return frozenset((*self._disks.names, self._disks.transfer_disk_path.name))

    def process_ids(self) -> tuple[int, ...]:
        watch = self._watch
        if watch is None or watch.has_ended or not watch.process:
            return ()
        return (watch.process,)

    def usage(self) -> Usage | None:
        pids = self.process_ids()
        return Usage(*own_usage(pids[0])) if pids else None

    async def create(self) -> None:
        if self.state is MachineState.DEFINED:
            self._disks = Disks(self.spec)
            self.state = MachineState.CREATED
        elif self.state is MachineState.SAVED and self._disks is None and self._saved is not None:
            await uninterrupted(self._open_saved(self._saved.layers))

    async def _open_saved(self, layers: tuple[str, ...]) -> None:
        self._disks = await in_side_thread(self._saved_disks, layers)

    def _saved_disks(self, layers: tuple[str, ...]) -> Disks:
        """Make the disks over the layers of a saved state. Raises HypervisorError, OSError."""
        if self._golden is not None:
            with disk_errors():
                for name in layers:
                    share_file(self._golden / name, self.spec.directory / name)
        return Disks(self.spec._replace(layers=layers), are_frozen=True)

    async def start(self) -> Channel:
        is_used = self._disks is None or self._watch is not None
        check_can_start(self.state, has_ended=self.state is MachineState.CREATED and is_used)
        resumes = self.state is MachineState.SAVED
        if resumes and self._watch is not None:  # it ran until it was saved
            self._watch = self._disks = None
            self._asked_to_end = False
        await self.create()
        if self._disks is None:
            raise RuntimeError("a machine that was created has no disks")
        try:
            link = await self._begin(self._disks)
        except BaseException as error:
            end = self._watch.process_end() if self._watch is not None else None
            await self._end()
            if end is not None and isinstance(error, LibvirtError) and error.is_of_ended:
                self._raise_for(end, error)
            raise
        if self.spec.ephemeral:
            self._disks.unlink()
            remove_if_empty(self.spec.directory)
        is_copy, self._golden = self._golden is not None, None
        self.state = MachineState.PAUSED if resumes and not is_copy else MachineState.RUNNING
        return SocketChannel(link)

    def _raise_for(self, end: MachineEnd, error: LibvirtError) -> None:
        """Raise the error for a hypervisor whose process has ended while the machine started."""
        message = f"the machine did not start: {end.detail}"
        if end.cause is EndCause.FAILED:
            raise HypervisorError(message, hint=error.hint) from error
        # A golden snapshot with which QEMU crashes each time would never be replaced.
        if self._golden is None:
            raise HypervisorKilledError(
                message, hint="the host may have run out of memory: see its system log"
            ) from error

    async def _begin(self, disks: Disks) -> socket.socket:
        """Start the domain, and return the link."""
        saved = self._saved if self.state is MachineState.SAVED else None
        self._connection = await Connection.open(self._uri)
        former = saved if self._golden is None else None  # whose name and identity it has
        home = await uninterrupted(self._make_home(former.id if former else ""))
        domain = Domain(
            home.id,
            former.uuid if former else str(uuid.uuid4()),
            self._uri,
            self._versions.is_accelerated,
            disks.layers,
            disks.transfer_disk_path,
            home.directory / LINK,
            home.directory / CONSOLE,
            saved.machine_type if saved else NEWEST_TYPE,
        )
        self._names = (domain.id, domain.uuid)
        text = definition(self.spec, domain)
        watch = self._watch = Watch()
        await self._connection.watch(domain.uuid, watch)
        with ExitStack() as stack:
            try:
                listeners = [
                    stack.enter_context(listen_at(home.directory / name))
                    for name in (LINK, CONSOLE)
                ]
            except OSError as error:
                raise host_error("the machine cannot start", error, HypervisorError) from error
            handle = self._connection.handle
            async with accepting(listeners, self._note_process) as accepted:
                if saved is None:
                    flags = libvirt.VIR_DOMAIN_START_AUTODESTROY if self._uri.has_autodestroy else 0
                    self._connection.domain = await call(START_LIMIT, handle.createXML, text, flags)
                else:
                    self._restoring = asyncio.ensure_future(
                        self._restore(self._connection, text, saved, domain, home)
                    )
                    await asyncio.shield(self._restoring)
                link, console = await accepted(_CONNECT_LIMIT)
        self._console = Console(console)
        if saved is not None and watch.process:
            # libvirt ends with our connection only what it has created, not what it has restored.
            self._guard = DeathGuard(watch.process, domain.name)
        if not self._is_connected:
            await self.connect(connected=False)
        if self._connection.domain is not None:
            await forward_ports(self._connection.domain, self.forwards)
        return link

    def _note_process(self, line: socket.socket) -> None:
        """Have the process followed that has connected `line`, if it is the domain's."""
        if self._watch is not None and self._uri.hypervisor == "qemu":
            self._watch.follow(peer_process(line))

    async def _make_home(self, identity: str) -> Home:
        home = self._home = await asyncio.to_thread(Home.make, self._uri, identity)
        return home

    async def _restore(
        self,
        connection: Connection,
        text: str,
        saved: SavedState,
        domain: Domain,
        home: Home,
    ) -> None:
        """Have libvirt restore the domain that `text` defines. Raises HypervisorError."""
        handle = connection.handle
        if self._golden is None:
            memory, state = self.spec.directory / saved.memory, libvirt.VIR_DOMAIN_SAVE_PAUSED
        else:
            names = {saved.id: domain.id, saved.uuid: domain.uuid}
            golden, memory = self._golden / saved.memory, home.directory / saved.memory
            with disk_errors():
                await in_side_thread(write_renamed, golden, memory, names)
            state = libvirt.VIR_DOMAIN_SAVE_RUNNING
        await call(SAVE_LIMIT, handle.restoreFlags, str(memory), text, state)
        connection.domain = await call(ANSWER_LIMIT, handle.lookupByUUIDString, domain.uuid)
        if self._golden is not None:
            memory.unlink()

    def _domain(self, wanted: str) -> libvirt.virDomain:
        if self._connection is None or self._connection.domain is None:
            raise HypervisorError(f"the machine is not running, so it cannot be {wanted}")
        return self._connection.domain

    async def _is_paused(self, domain: libvirt.virDomain) -> bool:
        """Ask libvirt, through which somebody else may have paused it, or let it run."""
        state = (await call(ANSWER_LIMIT, domain.state))[0]
        return state == libvirt.VIR_DOMAIN_PAUSED

    async def pause(self) -> None:
        domain = self._domain("paused")
        if not await self._is_paused(domain):
            await call(ANSWER_LIMIT, domain.suspend)
        self.state = MachineState.PAUSED

    async def resume(self) -> None:
        domain = self._domain("resumed")
        if await self._is_paused(domain):
            await call(ANSWER_LIMIT, domain.resume)
        self.state = MachineState.RUNNING

    async def connect(self, *, connected: bool) -> None:
        """Implement `NetworkCard.connect`."""
        self._is_connected = connected
        if self._connection is not None and self._connection.domain is not None:
            domain = self._connection.domain
            live = libvirt.VIR_DOMAIN_AFFECT_LIVE
            await call(ANSWER_LIMIT, domain.updateDeviceFlags, card(connected=connected), live)

    async def set_memory(self, size: int) -> None:
        """Implement `Balloon.set_memory`."""
        domain = self._domain("given another size")
        live = libvirt.VIR_DOMAIN_AFFECT_LIVE
        wanted = min(size, self.spec.memory)
        await call(ANSWER_LIMIT, domain.setMemoryFlags, wanted >> 10, live)
        if size >= self.spec.memory and self._reports_memory:
            await call(ANSWER_LIMIT, domain.setMemoryStatsPeriod, 0, live)
            self._reports_memory = False

    async def memory(self) -> GuestMemory | None:
        """Implement `Balloon.memory`."""
        domain = self._domain("measured")
        if not self._reports_memory:
            live = libvirt.VIR_DOMAIN_AFFECT_LIVE
            await call(ANSWER_LIMIT, domain.setMemoryStatsPeriod, REPORT_PERIOD, live)
            self._reports_memory = True
            return None
        statistics = await call(ANSWER_LIMIT, domain.memoryStats)
        at = float(statistics.get("last_update", 0))
        if "usable" not in statistics or time.time() > at + 2 * REPORT_PERIOD:
            return None
        return GuestMemory(statistics["actual"] << 10, statistics["usable"] << 10, at)

    async def checkpoint(
        self, number: int, record_layers: contract.RecordLayers | None = None
    ) -> Checkpoint:
        """Implement `Checkpointing.checkpoint`."""
        domain, disks, watch = self._to_be_saved()
        kind = await machine_type(domain)
        await check_top(domain, disks)
        live = self._versions.is_accelerated
        frozen = await uninterrupted(
            take_snapshot(domain, disks, watch, number, record_layers, live=live)
        )
        pause, layers = frozen.pause, frozen.layers
        if len(layers) >= MANY_LAYERS and not disks.unmerged:
            try:
                pause += await merge_layers(self.spec, domain, disks, watch, record_layers)
                layers = disks.names[:-1]
            except HypervisorError as error:  # the checkpoint is whole without it
                disks.unmerged = error.message  # told once there are too many
        state = self._saved_state(kind, frozen.memory, layers)
        self._checkpoint = await self._sealed(number, state, pause)
        return self._checkpoint

    async def save(
        self,
        number: int,
        record_layers: contract.RecordLayers | None = None,  # noqa: ARG002
    ) -> Checkpoint:
        """Implement `Checkpointing.save`; the disk needs no new layer until it resumes."""
        if self.state is MachineState.SAVED and self._checkpoint is not None:
            return self._checkpoint
        domain, disks, _ = self._to_be_saved()
        kind, memory = await machine_type(domain), memory_name(number)
        await check_top(domain, disks)
        self._asked_to_end = True
        try:
            await write_memory(domain, self.spec.directory / memory)
        except BaseException:
            self._asked_to_end = False
            raise
        await self._end()
        state = self._saved_state(kind, memory, disks.names)
        self._checkpoint = await self._sealed(number, state, 0.0)
        self._saved = state
        self.state = MachineState.SAVED
        return self._checkpoint

    async def freeze(self) -> None:
        """Implement `Freezing.freeze`."""
        domain, disks, _ = self._to_be_saved()
        kind, memory = await machine_type(domain), memory_name(1)
        self._asked_to_end = True
        await write_memory(domain, self.spec.directory / memory)
        await self._end()
        try:
            write_golden(self.spec.directory, self._saved_state(kind, memory, disks.names))
            disks.transfer_disk_path.unlink()
        except OSError as error:
            raise host_error("the snapshot cannot be written", error, HypervisorError) from error
        self.state = MachineState.DESTROYED  # what is left belongs to the snapshot

    def _to_be_saved(self) -> tuple[libvirt.virDomain, Disks, Watch]:
        domain = self._domain("saved")
        if self.spec.ephemeral or self._disks is None or self._watch is None:
            raise HypervisorError("an ephemeral machine is never saved")
        return domain, self._disks, self._watch

    def _saved_state(self, kind: str, memory: str, layers: tuple[str, ...]) -> SavedState:
        if self._names is None:
            raise RuntimeError("a machine that ran has no domain")
        return SavedState(self._versions, *self._names, kind, processor_name(), memory, layers)

    async def _sealed(self, number: int, state: SavedState, pause: float) -> Checkpoint:
        return await sealed_checkpoint(
            number, self.spec.directory, state.files, state.table(), self._checkpoint, pause
        )

    async def stop(self) -> None:
        self._asked_to_end = self._asked_to_end or self.state.is_active
        await self._end()
        if self.state.is_active:
            self.state = MachineState.STOPPED

    async def _end(self) -> None:
        """End the domain if it runs, and release everything but the disk's files. Idempotent."""
        try:
            if self._connection is not None and self._watch is not None:
                await self._end_domain(self._connection, self._watch)
        finally:
            await self._release()

    async def _end_domain(self, connection: Connection, watch: Watch) -> None:
        if self._restoring is not None:
            # It cannot be called off, and what it restores would not end with our connection.
            await asyncio.wait((self._restoring,))
        if connection.domain is None or watch.has_ended:
            return
        watch.kill()  # a polite end, which libvirt tries first, takes longer
        try:
            await call(ANSWER_LIMIT, connection.domain.destroy)
        except LibvirtError as error:
            if error.code not in _ENDED_ALREADY and connection.handle.isAlive():
                raise
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                await watch.ended()
        except TimeoutError:
            raise HypervisorError(
                f"libvirt has not reported within {ANSWER_LIMIT:g} s that the machine has ended"
            ) from None

    async def _release(self) -> None:
        """Release everything but the disk's files. Idempotent."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()
        if self._watch is not None:
            self._watch.close()
        if self._guard is not None:
            self._guard.end()
            self._guard = None
        if self._console is not None:
            self._console.close()
            self._console = None
        if self._disks is not None:
            self._disks.close()
        if self._home is not None:
            self._home.remove()
            self._home = None

    async def destroy(self) -> None:
        await self.stop()
        if self.state is not MachineState.DESTROYED:
            is_made = self._disks is not None or self._saved is not None
            if is_made and self.spec.directory.exists():
                unlink_files(self.spec.directory)
            self._disks = None
            self.state = MachineState.DESTROYED

    async def ended(self) -> MachineEnd:
        if self._watch is None:
            raise HypervisorError("the machine was never started")
        end = await self._watch.ended()
        if self._asked_to_end:
            return MachineEnd(EndCause.ASKED, "")
        if end.cause is EndCause.POWERED_OFF and self._console is not None:
            panic = self._console.panic_line()
            return MachineEnd(EndCause.PANICKED, panic) if panic else end
        return end
