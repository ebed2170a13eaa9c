"""A machine that is a transient domain of libvirt, which ends with our connection to it."""

import asyncio
import socket
import time
import uuid
from contextlib import ExitStack

import libvirt

from boincvm.errors import HypervisorError, host_error
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
from boincvm.hypervisor.disks import TransferDiskFile
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
from boincvm.hypervisor.libvirt.disks import Disks, unlink_files
from boincvm.hypervisor.libvirt.home import CONSOLE, LINK, Home
from boincvm.hypervisor.libvirt.saved import SavedState, Versions, read_saved_state
from boincvm.hypervisor.libvirt.saving import (
    describe,
    machine_type,
    memory_name,
    take_snapshot,
    write_memory,
)
from boincvm.hypervisor.libvirt.uri import SAVES, Uri
from boincvm.hypervisor.libvirt.watch import Watch
from boincvm.hypervisor.listeners import accept_all

_RUNS = (MachineState.RUNNING, MachineState.PAUSED)
_ENDED_ALREADY = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
_CONNECT_LIMIT = 20.0
"""Seconds within which a hypervisor that has started has connected the link and the console."""


class LibvirtMachine:
    """A domain and its files: the root disk's layers and `window`."""

    freezing = None
    display = None
    root_disk = None

    def __init__(
        self, spec: MachineSpec, uri: Uri, versions: Versions, source: Checkpoint | None = None
    ) -> None:
        """Make a machine that boots, or resumes from the checkpoint `source`.

        Raises HypervisorError for an invalid checkpoint.
        """
        self.spec = spec
        self.state = MachineState.DEFINED if source is None else MachineState.SAVED
        self._uri = uri
        self._versions = versions
        self._checkpoint = source
        self._saved = read_saved_state(source) if source is not None else None
        self._names: tuple[str, str] | None = None
        self._guard: DeathGuard | None = None
        self._disks: Disks | None = None
        self._home: Home | None = None
        self._connection: Connection | None = None
        self._watch: Watch | None = None
        self._console: Console | None = None
        self._asked_to_end = False
        self._is_connected = True
        self._reports_memory = False

    @property
    def checkpointing(self) -> contract.Checkpointing | None:
        return self if self._uri.hypervisor == SAVES else None

    @property
    def balloon(self) -> contract.Balloon | None:
        return self if self.spec.balloon else None

    @property
    def network(self) -> contract.NetworkCard | None:
        return self if self.spec.network else None

    @property
    def transfer_disk(self) -> contract.TransferDisk | None:
        window = self._disks.window if self._disks is not None else -1
        return TransferDiskFile(window) if window >= 0 else None

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
        return frozenset((*self._disks.names, self._disks.window_path.name))

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
            self._disks = Disks(self.spec._replace(layers=self._saved.layers), are_frozen=True)

    async def start(self) -> Channel:
        if self.state in _RUNS:
            raise HypervisorError("the machine is already running, and its link is taken")
        resumes = self.state is MachineState.SAVED
        if resumes and self._watch is not None:  # it ran until it was saved
            self._watch = self._disks = None
            self._asked_to_end = False
        elif self.state is MachineState.CREATED and (self._disks is None or self._watch):
            raise HypervisorError("the machine has ended, so it cannot start again")
        if self.state in (MachineState.STOPPED, MachineState.DESTROYED):
            raise HypervisorError("the machine has ended, so it cannot start again")
        await self.create()
        if self._disks is None:
            raise RuntimeError("a machine that was created has no disks")
        try:
            link = await self._begin(self._disks)
        except BaseException:
            await self._end()
            raise
        if self.spec.ephemeral:
            self._disks.unlink()
            remove_if_empty(self.spec.directory)
        self.state = MachineState.PAUSED if resumes else MachineState.RUNNING
        return SocketChannel(link)

    async def _begin(self, disks: Disks) -> socket.socket:
        """Start the domain, and return the link."""
        saved = self._saved if self.state is MachineState.SAVED else None
        self._connection = await Connection.open(self._uri)
        home = self._home = await asyncio.to_thread(Home.make, self._uri, saved.id if saved else "")
        domain = Domain(
            home.id,
            saved.uuid if saved else str(uuid.uuid4()),
            self._uri,
            self._versions.is_accelerated,
            disks.layers,
            disks.window_path,
            home.directory / LINK,
            home.directory / CONSOLE,
            saved.machine_type if saved else NEWEST_TYPE,
        )
        self._names = (domain.id, domain.uuid)
        text = definition(self.spec, domain)
        watch = self._watch = Watch()
        await self._connection.watch(
            domain.uuid, watch.on_lifecycle, watch.on_disk_full, watch.on_close
        )
        with ExitStack() as stack:
            try:
                listeners = [stack.enter_context(home.listen(name)) for name in (LINK, CONSOLE)]
            except OSError as error:
                raise host_error("the machine cannot start", error, HypervisorError) from error
            handle = self._connection.handle
            if saved is None:
                flags = libvirt.VIR_DOMAIN_START_AUTODESTROY if self._uri.has_autodestroy else 0
                self._connection.domain = await call(START_LIMIT, handle.createXML, text, flags)
            else:
                memory = str(self.spec.directory / saved.memory)
                paused = libvirt.VIR_DOMAIN_SAVE_PAUSED
                await call(SAVE_LIMIT, handle.restoreFlags, memory, text, paused)
                self._connection.domain = await call(
                    ANSWER_LIMIT, handle.lookupByUUIDString, domain.uuid
                )
            link, console = await accept_all(listeners, _CONNECT_LIMIT)
        if self._uri.hypervisor == "qemu":
            watch.follow(peer_process(link))
        self._console = Console(console)
        if saved is not None and watch.process:
            # libvirt ends with our connection only what it has created, not what it has restored.
            self._guard = DeathGuard(watch.process, domain.name)
        if not self._is_connected:
            await self.connect(connected=False)
        return link

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
        domain, disks = self._to_be_saved()
        kind = await machine_type(domain)
        frozen = await take_snapshot(domain, disks, number, record_layers)
        state = self._saved_state(kind, frozen.memory, frozen.layers)
        directory, former = self.spec.directory, self._checkpoint
        self._checkpoint = await describe(number, directory, state, former, frozen.seconds)
        return self._checkpoint

    async def save(
        self,
        number: int,
        record_layers: contract.RecordLayers | None = None,  # noqa: ARG002
    ) -> Checkpoint:
        """Implement `Checkpointing.save`; the disk needs no new layer until it resumes."""
        if self.state is MachineState.SAVED and self._checkpoint is not None:
            return self._checkpoint
        domain, disks = self._to_be_saved()
        kind, memory = await machine_type(domain), memory_name(number)
        self._asked_to_end = True
        try:
            await write_memory(domain, self.spec.directory / memory)
        except BaseException:
            self._asked_to_end = False
            raise
        await self._end()
        state = self._saved_state(kind, memory, disks.names)
        self._checkpoint = await describe(
            number, self.spec.directory, state, self._checkpoint, pause=0.0
        )
        self._saved = state
        self.state = MachineState.SAVED
        return self._checkpoint

    def _to_be_saved(self) -> tuple[libvirt.virDomain, Disks]:
        domain = self._domain("saved")
        if self.spec.ephemeral or self._disks is None:
            raise HypervisorError("an ephemeral machine is never saved")
        return domain, self._disks

    def _saved_state(self, kind: str, memory: str, layers: tuple[str, ...]) -> SavedState:
        if self._names is None:
            raise RuntimeError("a machine that ran has no domain")
        return SavedState(self._versions, *self._names, kind, processor_name(), memory, layers)

    async def stop(self) -> None:
        self._asked_to_end = self._asked_to_end or self.state in _RUNS
        await self._end()
        if self.state in _RUNS:
            self.state = MachineState.STOPPED

    async def _end(self) -> None:
        """End the domain if it runs, and let go of everything but the disk's files. Idempotent."""
        try:
            if self._connection is not None and self._watch is not None:
                await self._end_domain(self._connection, self._watch)
        finally:
            await self._release()

    async def _end_domain(self, connection: Connection, watch: Watch) -> None:
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
                f"libvirt has not told within {ANSWER_LIMIT:g} s that the machine has ended"
            ) from None

    async def _release(self) -> None:
        """Let go of everything but the disk's files. Idempotent."""
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
