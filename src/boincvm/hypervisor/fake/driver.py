"""A hypervisor in memory, for tests and for anyone who writes against this library.

It imitates only the contract of a real machine: states, the guest link, and ends that the test
triggers.
"""

import asyncio
import socket
import time

from boincvm.errors import HypervisorError
from boincvm.hypervisor import contract
from boincvm.hypervisor.channel import Channel, SocketChannel
from boincvm.hypervisor.contract import (
    Checkpoint,
    EndCause,
    Finding,
    GuestMemory,
    MachineEnd,
    MachineSpec,
    MachineState,
    RecordLayers,
)
from boincvm.hypervisor.fake.guest import FakeGuest, FakeProgram


class FakeDriver:
    """Makes machines whose guests run the functions in `programs`, and keeps them in `machines`.

    With `boots` False a machine starts but its guest never speaks.
    """

    name = "fake"
    has_firmware = True
    most_cpus: int | None = None
    golden_snapshots: contract.GoldenSnapshots | None = None

    def __init__(
        self, programs: dict[str, FakeProgram] | None = None, *, boots: bool = True
    ) -> None:
        self.programs = programs or {}
        self.boots = boots
        self.machines: list[FakeMachine] = []

    def machine(self, spec: MachineSpec) -> "FakeMachine":
        machine = FakeMachine(spec, FakeGuest(self.programs), boots=self.boots)
        self.machines.append(machine)
        return machine

    @property
    def saved_machines(self) -> "FakeDriver":
        return self

    def restore(self, spec: MachineSpec, checkpoint: Checkpoint) -> "FakeMachine":
        for machine in reversed(self.machines):
            is_here = machine.spec.directory == spec.directory
            if is_here and machine.state is MachineState.SAVED:
                return machine
        raise HypervisorError(f"checkpoint {checkpoint.number} is not in {spec.directory}")

    def examine(self, checkpoint: Checkpoint) -> list[Finding]:  # noqa: ARG002
        return [Finding(is_good=True, what="it is in memory")]


class FakeMachine:
    """A machine in memory; tests can inspect its `guest` and make it misbehave."""

    freezing = None
    display: contract.Display | None = None
    screenshots: contract.Screenshots | None = None
    remote_desktop: contract.RemoteDesktop | None = None
    forwards = ()
    transfer_disk = None
    root_disk = None

    def __init__(self, spec: MachineSpec, guest: FakeGuest, *, boots: bool) -> None:
        self.spec = spec
        self.state = MachineState.DEFINED
        self.guest = guest
        self.network_connected = spec.network
        self.memory_size = spec.memory
        self.needed = 64 << 20
        """Bytes that its guest says it cannot do without."""
        self._boots = boots
        self._ended: asyncio.Future[MachineEnd] | None = None
        self._guest_end: socket.socket | None = None
        guest.on_power_off = lambda: self.end(EndCause.POWERED_OFF, "")

    disk_layers: tuple[str, ...] = ()

    @property
    def checkpointing(self) -> contract.Checkpointing:
        return self

    @property
    def balloon(self) -> contract.Balloon | None:
        return self if self.spec.balloon else None

    @property
    def network(self) -> contract.NetworkCard | None:
        return self if self.spec.network else None

    def usage(self) -> None:
        """Return None: its usage cannot be told from that of this process."""

    def process_ids(self) -> tuple[int, ...]:
        return ()

    async def create(self) -> None:
        if self.state is MachineState.DEFINED:
            self.state = MachineState.CREATED

    async def start(self) -> Channel:
        if self.state.is_active:
            raise HypervisorError("the machine is already running, and its link is in use")
        if self.state is MachineState.DESTROYED:
            raise HypervisorError("the machine was destroyed, so it cannot start")
        goes_on = self.state is MachineState.SAVED
        await self.create()
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        ours, self._guest_end = socket.socketpair()
        if self._boots:
            await loop.create_connection(lambda: self.guest, sock=self._guest_end)
        self.state = MachineState.PAUSED if goes_on else MachineState.RUNNING
        return SocketChannel(ours)

    async def pause(self) -> None:
        self._check_started("paused")
        self.guest.pause()
        self.state = MachineState.PAUSED

    async def resume(self) -> None:
        self._check_started("resumed")
        self.guest.resume()
        self.state = MachineState.RUNNING

    def _check_started(self, wanted: str) -> None:
        if not self.state.is_active:
            raise HypervisorError(f"the machine is not running, so it cannot be {wanted}")

    async def connect(self, *, connected: bool) -> None:
        self.network_connected = connected

    async def set_memory(self, size: int) -> None:
        self._check_started("given other memory")
        self.memory_size = min(size, self.spec.memory)

    async def memory(self) -> GuestMemory | None:
        self._check_started("asked for its memory")
        available = max(self.memory_size - self.needed, 0)
        return GuestMemory(self.memory_size, available, time.time())

    async def checkpoint(
        self,
        number: int,
        record_layers: RecordLayers | None = None,  # noqa: ARG002 - it has no disk
    ) -> Checkpoint:
        """Pretend to make a checkpoint: the state of the guest's functions cannot be restored."""
        self._check_started("kept")
        return Checkpoint(number, {}, {})

    async def save(
        self,
        number: int,
        record_layers: RecordLayers | None = None,  # noqa: ARG002
    ) -> Checkpoint:
        if self.state is not MachineState.SAVED:
            self._check_started("saved")
            self.end(EndCause.ASKED, "", keep_guest=self.guest.is_quiet)
            self.state = MachineState.SAVED
        return Checkpoint(number, {}, {})

    def files_in_use(self) -> frozenset[str]:
        return frozenset()

    async def stop(self) -> None:
        if self.state is not MachineState.SAVED:
            self.end(EndCause.ASKED, "")
        if self.state.is_active:
            self.state = MachineState.STOPPED

    async def destroy(self) -> None:
        self.end(EndCause.ASKED, "")
        self.state = MachineState.DESTROYED

    def end(self, cause: EndCause, detail: str, *, keep_guest: bool = False) -> None:
        """End the machine now, for `cause`."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(MachineEnd(cause, detail))
        if keep_guest:
            self.guest.hang_up()
        else:
            self.guest.close()
        if self._guest_end is not None:
            self._guest_end.close()
            self._guest_end = None

    async def ended(self) -> MachineEnd:
        if self._ended is None:
            raise HypervisorError("the machine was never started")
        return await asyncio.shield(self._ended)
