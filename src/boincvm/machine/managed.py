"""Manages one virtual machine from start to end.

It starts from the first source that works, is paused and resumed by its owner, and can be saved to
disk while it runs or when it ends.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from typing import TypeVar

from boincvm.errors import (
    GuestError,
    HostDiskFullError,
    HypervisorError,
    HypervisorKilledError,
)
from boincvm.guestlink.link import GuestLink
from boincvm.hypervisor.contract import (
    Checkpoint,
    Driver,
    EndCause,
    GuestMemory,
    Machine,
    MachineEnd,
    MachineSpec,
    MachineState,
    RecordLayers,
    RemoteDesktopAccess,
)
from boincvm.machine.admission import Admission
from boincvm.machine.checkpoint_turn import CheckpointTurn
from boincvm.machine.end import end_error
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.resources import MemoryHold, Usage, resident
from boincvm.machine.session import Session
from boincvm.machine.settings import Settings
from boincvm.machine.spec import clone_identity_for
from boincvm.machine.start_source import (
    Boot,
    Clone,
    Rejected,
    Restore,
    StartSource,
    UnusableSourceError,
    can_be_cloned,
)
from boincvm.stopwatch import Stopwatch

T = TypeVar("T")

_LATE = 0.2
"""Seconds by which a guest's clock may be late when it has started."""
_KILLED_BY_OWNER = MachineEnd(EndCause.ASKED, "")


class ManagedMachine:
    """One machine of `driver`, made from `spec`.

    It can be paused or killed at any time, even before or during its start.
    """

    def __init__(
        self,
        driver: Driver,
        spec: MachineSpec,
        settings: Settings | None = None,
        admission: Admission | None = None,
    ) -> None:
        """Take what makes the machine; `admission`: if it has been let in already."""
        self._admission = admission
        self.driver = driver
        self.spec = spec
        self._settings = settings or Settings()
        self.rejected: list[Rejected] = []
        """Sources that were tried and unusable, in order; sources that did not exist are not
        listed."""
        self._source: StartSource | None = None
        self._machine: Machine | None = None
        self._session: Session | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.has_begun = False
        """Its hypervisor was started, so its disk may have changed."""
        self._wants_golden = False
        self._is_answering = False
        self._should_pause = False
        self._is_killed = False
        self._is_quiesced = False
        self._must_wake = False
        """The machine stays paused until its guest has been given its new identity."""
        self._watch = Stopwatch()
        self._busy = asyncio.Lock()  # held while the machine changes its state
        self._turn = CheckpointTurn()
        self._usage = Usage()
        self._memory = MemoryHold(spec.memory)

    @property
    def session(self) -> Session:
        """Return the running machine and its guest link; `start` must have opened them."""
        if self._session is None:
            raise RuntimeError("the machine was not started")
        return self._session

    @property
    def is_answering(self) -> bool:
        """Tell whether the guest has answered, and so can be saved."""
        return self._is_answering

    @property
    def can_be_saved(self) -> bool:
        """Tell whether the guest has answered and the driver can save the machine."""
        return self._is_answering and self._required().checkpointing is not None

    @property
    def is_saved(self) -> bool:
        """Tell whether it is saved on disk. A clone that has not started yet is not."""
        is_unborn = isinstance(self._source, Clone) and self._session is None
        return self._state is MachineState.SAVED and not is_unborn

    @property
    def is_up(self) -> bool:
        """Tell whether it runs or is paused, and nothing has been seen of its end or its link's."""
        session = self._session
        return session is not None and self._state.is_active and not session.is_ending

    @property
    def disk_layers(self) -> tuple[str, ...]:
        """Return the names of the files that make up its disk, for `MachineSpec.layers`."""
        return self._machine.disk_layers if self._machine is not None else ()

    def files_in_use(self) -> frozenset[str]:
        """Return the names of the files in its directory that the running machine needs."""
        return self._machine.files_in_use() if self._machine is not None else frozenset()

    @property
    def _state(self) -> MachineState:
        return self._machine.state if self._machine is not None else MachineState.DEFINED

    def _required(self) -> Machine:
        if self._machine is None:
            raise HypervisorError("the machine has not started")
        return self._machine

    # Start.

    async def start(self, sources: Sequence[StartSource]) -> None:
        """Start from the first of `sources` that works; wait until the guest's agent has answered.

        A source that fails is discarded, and `rejected` tells why. No other source is tried if the
        machine has been killed or the failure is not the source's fault: HypervisorKilledError,
        HypervisorMissingError, UsageError and OSError are raised at once. So is HostDiskFullError,
        except for a copy, which may need more of the disk than a boot and is not discarded. Raises
        the last source's HypervisorError, GuestError or SavedMachineError. Raises
        NotEnoughRoomError if there are as many machines as may be (admission.py).
        """
        if self._admission is None:
            self._admission = Admission(self.spec.memory)
        self._wants_golden = any(isinstance(source, Clone) for source in sources)
        for source in sources:
            try:
                machine = source.make(self.driver, self.spec)
                await self._begin(source, machine)
            except UnusableSourceError as error:
                if error.reason:
                    self.rejected.append(Rejected(str(source), error.reason))
            except HypervisorKilledError:
                raise
            except HostDiskFullError as error:
                if self._is_killed or not source.may_need_more_disk or source is sources[-1]:
                    raise
                self.rejected.append(Rejected(str(source), error.message))
                await self._abandon(source)
            except (HypervisorError, GuestError, SavedMachineError) as error:
                if self._is_killed:
                    raise
                if source is sources[-1]:
                    source.reraise(error)
                self.rejected.append(Rejected(str(source), error.message))
                await self._abandon(source)
                source.discard()
            else:
                return
        why = f": {self.rejected[-1].reason}" if self.rejected else ""
        raise HypervisorError(f"there is nothing to start the machine from{why}")

    @property
    def is_cold(self) -> bool:
        """Tell whether it booted rather than starting from a snapshot or a checkpoint."""
        return not isinstance(self._source, Clone | Restore)

    @property
    def cold_because(self) -> str:
        """Return why it booted although there was another source; empty otherwise."""
        return self.rejected[-1].reason if self.is_cold and self.rejected else ""

    @property
    def lacks_golden(self) -> bool:
        """Tell whether it booted for lack of a golden snapshot, so that one should be made."""
        return self.is_cold and self._wants_golden and can_be_cloned(self.driver, self.spec)

    async def _begin(self, source: StartSource, machine: Machine) -> None:
        """Start from `source`; wait for the agent, unless the guest stays paused until `wake`."""
        settings, admission = self._settings, self._admission
        self._source, self._machine = source, machine
        if isinstance(source, Boot) and admission is not None and not self._should_pause:
            await admission.boot()
        async with self._busy:
            goes_on = self._must_wake = isinstance(source, Restore)
            self._memory = MemoryHold(None if goes_on else self.spec.memory)
            self._check_not_killed()
            await machine.create()
            self.has_begun = True
            channel = await machine.start()
            try:
                self._check_not_killed()
                link = await GuestLink.open(
                    channel,
                    silence_limit=settings.limits.silence,
                    beat=settings.report_period,
                    attach_to=source.link_state,
                    attach_is_sent=isinstance(source, Clone) and source.attach_is_sent,
                    host_name=self.spec.host_name,
                    environment=self.spec.environment,
                )
            except BaseException:
                channel.close()
                await machine.stop()  # nothing watches it, or ever will
                raise
            self._session = Session(machine, link)
            self._watch_session()
        await self._apply()
        match source:
            case Boot():
                await self._wait_for(_ready(link))
                if admission is not None:
                    admission.end_boot()
            case Clone():
                await self._wait_for(link.attach(None, clone_identity_for(self.spec)))
            case Restore(attach=attach) if attach is not None:
                attach(link)
                await self.wake()

    def _check_not_killed(self) -> None:
        if self._is_killed:
            raise end_error(_KILLED_BY_OWNER)

    async def _abandon(self, source: StartSource) -> None:
        """Undo the failed start from `source`."""
        await self._stop_watching()
        self.host_seconds()  # the last chance to measure it
        self._usage.start_process()
        if self._session is not None:
            self._session.link.close()
            self._session = None
        if self._machine is not None:
            await (self._machine.stop() if source.keeps_files else self._machine.destroy())
            self._machine = self._source = None
        self.spec.directory.mkdir(mode=0o700, exist_ok=True)

    async def wake(self) -> None:
        """Let the restored guest run. Raises GuestError, HypervisorError."""
        identity = clone_identity_for(self.spec)
        await self._wait_for(self.session.link.attach(None, identity, self._resume))

    async def _resume(self) -> None:
        self._must_wake = False
        await self._apply()

    async def _wait_for(self, first_answer: Coroutine[None, None, object]) -> None:
        """Wait for `first_answer`, the agent's first answer; paused time does not count."""
        begin = time.monotonic()
        await self.guard(self._within_limit(first_answer))
        self._is_answering = True
        if time.monotonic() - begin > _LATE and not self._should_pause:
            self.session.link.set_clock()  # what it was told first may have been on its way as long
        if not self._should_pause:
            self.session.link.expect_beats(self._settings.limits.silence)

    async def _within_limit(self, first_answer: Coroutine[None, None, object]) -> None:
        limit = self._settings.limits.boot
        answer = asyncio.ensure_future(first_answer)
        alarm = asyncio.ensure_future(self._watch.reach(self._watch.elapsed + limit))
        try:
            await asyncio.wait((answer, alarm), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                from boincvm.machine.screenshot import keep_screenshot  # rarely needed

                picture = await keep_screenshot(self._required())
                what = f"the guest's agent did not answer within {limit:g} s of the start{picture}"
                end = MachineEnd(EndCause.NEVER_BOOTED, what, self._settings.boot_hint)
                self.session.conclude(end)
                raise end_error(end)
            answer.result()
        finally:
            answer.cancel()
            alarm.cancel()
            await asyncio.gather(answer, alarm, return_exceptions=True)

    # Operation.

    async def guard(self, work: Coroutine[None, None, T]) -> T:
        """Return the result of `work`, or raise the error that ended the machine or its link."""
        return await self.session.guard(work)

    async def suspend(self) -> None:
        """Pause the machine as soon as it exists; calling it again is harmless."""
        self._should_pause = True
        self.give_up_turn("the machine is suspended")
        self._watch.pause()
        if self._admission is not None:
            self._admission.end_boot()  # others may boot while it is paused
        await self._apply()

    async def resume(self) -> None:
        """Undo `suspend`."""
        self._should_pause = False
        self._watch.resume()
        await self._apply()

    async def _apply(self) -> None:
        async with self._busy:
            if self._session is None or not self._state.is_active:
                return
            machine, link = self._required(), self._session.link
            if self._should_pause or self._must_wake:
                link.expect_beats(None)
                await machine.pause()
            else:
                was_paused = machine.state is MachineState.PAUSED
                await machine.resume()
                if self._is_answering:
                    link.expect_beats(self._settings.limits.silence)
                if was_paused and (self._is_answering or isinstance(self._source, Restore)):
                    link.set_clock()

    def set_clock(self) -> None:
        """Set the guest's clock to the host's time, if the guest is running."""
        if self._is_answering and self._state is MachineState.RUNNING:
            self.session.link.set_clock()

    async def save(
        self,
        number: int,
        inspect: Callable[[], T],
        *,
        last: bool,
        hold: bool = False,
        record_layers: RecordLayers | None = None,
        begins: Callable[[], None] | None = None,
    ) -> tuple[Checkpoint, dict[str, object], T]:
        """Save the machine to disk as it is now; with `last` it ends, otherwise it runs on.

        `hold` stops its programs meanwhile, which `last` always does: then a machine that is
        resumed from the checkpoint repeats nothing that another copy has done. `record_layers`: for
        a machine whose disk outlives its processes (contract.py, `Machine.checkpoint`).

        Returns the checkpoint with this number, the guest link's state, and what `inspect` returns
        while the guest is quiet. Raises HypervisorError, GuestError: the machine is then watched as
        before, and after a failed `last`, `go_on` lets it run.

        It waits until no other machine of this host is being checkpointed, and has done nothing to
        the machine before that; then it calls `begins`. `last` does not wait. See `give_up_turn`.
        """
        if last:
            self.give_up_turn("the machine is saved for the last time")
        async with nullcontext() if last else self._turn.taken():
            if begins is not None:
                begins()
            return await self._save(number, inspect, last, hold, record_layers)

    @property
    def waits_for_turn(self) -> bool:
        """Tell whether a save waits for other machines' checkpoints; it has done nothing yet."""
        return self._turn.is_waiting

    def give_up_turn(self, why: str) -> None:
        """Have a save that still waits for other machines' checkpoints raise HypervisorError."""
        self._turn.give_up(why)

    def turn_not_waited_for(self, why: str) -> AbstractContextManager[None]:
        """Do `give_up_turn`, also for each save that would begin to wait within the block."""
        return self._turn.not_waited_for(why)

    async def _save(
        self,
        number: int,
        inspect: Callable[[], T],
        last: bool,
        hold: bool,
        record_layers: RecordLayers | None,
    ) -> tuple[Checkpoint, dict[str, object], T]:
        async with self._busy:
            machine, link = self._required(), self.session.link
            checkpointing = machine.checkpointing
            if checkpointing is None:
                raise HypervisorError(f"a machine of the driver {self.driver.name} cannot be saved")
            await machine.resume()  # a paused agent cannot finish its last frame
            self._is_quiesced = True
            begin = time.monotonic()
            try:
                await link.quiesce(self._settings.limits.stop, hold=last or hold)
            except GuestError:
                if last:
                    self._is_answering = False
                else:
                    await self._run_on(link)
                raise
            state, seen = link.state(), inspect()
            try:
                if last:
                    await self._stop_watching()
                    self.host_seconds()  # the last chance to measure it
                    checkpoint = await checkpointing.save(number, record_layers)
                    link.close()
                else:
                    checkpoint = await checkpointing.checkpoint(number, record_layers)
            except BaseException:
                if last:
                    self._watch_session()
                # Report the original error, not one that it causes here.
                with suppress(GuestError, HypervisorError):
                    await (self._go_on(link) if last else self._run_on(link))
                raise
            if not last:
                await self._run_on(link)
                if hold:
                    checkpoint = checkpoint._replace(pause=time.monotonic() - begin)
            return checkpoint, state, seen

    async def _run_on(self, link: GuestLink) -> None:
        """Let it run again, unless it was suspended before the save or during it."""
        await self._go_on(link)
        if self._should_pause:
            link.expect_beats(None)
            await self._required().pause()

    async def _go_on(self, link: GuestLink) -> None:
        self._is_quiesced = False
        await self._required().resume()
        try:
            await link.attach(self._settings.limits.stop)
        finally:  # otherwise a silent guest would never be noticed
            link.expect_beats(self._settings.limits.silence)

    async def go_on(self, *, paused: bool = False) -> None:
        """Let it run again after a save that failed, or be `paused` as before it.

        Raises HypervisorError, GuestError.
        """
        async with self._busy:
            if self._is_quiesced:
                await self._go_on(self.session.link)
                self._is_answering = True
        await (self.suspend() if paused else self.resume())

    async def freeze(self) -> None:
        """Turn this machine into a golden snapshot.

        It must have started from `Boot(freezable=True)`, and be quiet.
        """
        freezing = self._required().freezing
        if freezing is None:
            raise HypervisorError("this machine cannot become a golden snapshot")
        await self._stop_watching()  # its end is no failure, though the hypervisor may end first
        try:
            await freezing.freeze()
        except BaseException:
            self._watch_session()
            raise

    # End.

    async def ended(self) -> MachineEnd:
        """Wait until the machine or its link ends; return how. Raises the session's error."""
        return await self.session.ended()

    async def close(self, *, keep: bool = False) -> None:
        """End the machine, and remove its files unless `keep` is set or it is saved."""
        self.give_up_turn("the machine is ended")
        await self._stop_watching()
        self.host_seconds()  # the last chance to measure it
        try:
            if self._session is not None:
                self._session.link.close()
            if self._machine is None:
                return
            if keep:
                await self._machine.stop()
            elif not self.is_saved:
                await self._machine.destroy()
        finally:
            if self._admission is not None:
                self._admission.end()
                self._admission = None

    async def kill(self) -> None:
        """End the machine immediately, whatever else is in progress."""
        self._is_killed = True
        self.give_up_turn("the machine is ended")
        await self._stop_watching()
        self.host_seconds()
        if self._machine is not None:
            await self._machine.stop()
        if self._session is not None:
            self._session.conclude(_KILLED_BY_OWNER)

    def _watch_session(self) -> None:
        self._watcher = asyncio.ensure_future(self.session.watch())

    async def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    # Host resources.

    def host_seconds(self) -> float:
        """Return the CPU time that the hypervisor has used for it since this process started."""
        return self._usage.seconds(self._machine)

    def resident(self) -> int:
        """Return the bytes of host memory that it uses now."""
        return resident(self._machine) if self._machine is not None else 0

    @property
    def process_id(self) -> int | None:
        """Return the hypervisor's process id, for display."""
        ids = self._machine.process_ids() if self._machine is not None else ()
        return next(iter(ids), None)

    @property
    def size(self) -> int:
        """Return the bytes of memory that it was created with."""
        return self.spec.memory

    @property
    def remote_desktop(self) -> RemoteDesktopAccess | None:
        """Return how to reach its remote desktop, None if it has none."""
        desktop = self._machine.remote_desktop if self._machine is not None else None
        return desktop.access if desktop is not None else None

    async def hold_memory(
        self, choose: Callable[[GuestMemory | None], int | None], settle_time: float
    ) -> int | None:
        """Resize the guest's memory to what `choose` returns for the guest's own statistics.

        Does nothing within `settle_time` seconds of the last change. Returns the bytes that the
        guest has now, or None if it was left alone. Raises HypervisorError.
        """
        async with self._busy:
            balloon = self._machine.balloon if self._machine is not None else None
            if balloon is None or not self._state.is_active:
                return None
            return await self._memory.hold(balloon, choose, settle_time)

    async def connect_network(self, *, connected: bool) -> None:
        """Plug in or unplug the guest's network cable, if it has a card."""
        card = self._machine.network if self._machine is not None else None
        if card is not None and self._session is not None:
            await card.connect(connected=connected)


async def _ready(link: GuestLink) -> None:
    await link.ready


@asynccontextmanager
async def opened(
    driver: Driver,
    spec: MachineSpec,
    sources: Sequence[StartSource] = (),
    settings: Settings | None = None,
) -> AsyncIterator[ManagedMachine]:
    """Yield a started machine and destroy it after the block. Without `sources` it boots.

    Raises HypervisorError, HypervisorMissingError, HostDiskFullError, GuestError.
    """
    machine = ManagedMachine(driver, spec, settings)
    try:
        await machine.start(sources or [Boot()])
        yield machine
    finally:
        await machine.close()
