"""A machine that lives in the slot: it serves one task or several, is paused and resumed at the
client's word, and can be put to sleep on disk and go on in another run of the wrapper."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TypeVar

from boincvm.errors import GuestError, GuestNeverBootedError, HypervisorError
from boincvm.guestlink.link import GuestLink
from boincvm.host.process_tree import own_usage
from boincvm.hypervisor.contract import Checkpoint, GuestMemory, Machine, MachineState
from boincvm.job.model import Limits
from boincvm.machine.golden.snapshots import Golden
from boincvm.machine.saved_machine import SavedMachine
from boincvm.machine.session import Session
from boincvm.machine.spec import fresh_for
from boincvm.stopwatch import Stopwatch

T = TypeVar("T")

REPORT_PERIOD = 1.0
"""Seconds between two times that the guest tells what its programs have used: as often as the
client is told."""
_LITTLE = 16 << 20
"""Bytes."""


class TaskMachine:
    """`start` boots it, or lets it go on where `saved` says that it was left, or `golden`, of
    which the machine is a copy."""

    def __init__(
        self,
        machine: Machine,
        limits: Limits,
        saved: SavedMachine | None,
        golden: Golden | None = None,
    ) -> None:
        self.machine = machine
        self.saved = saved
        self._golden = golden
        self.steps: list[int] = list(saved.steps) if saved else []
        self._limits = limits
        self._session: Session | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._is_answering = False
        self._should_pause = False
        self._is_quiet = False
        self._must_wake = saved is not None
        """It stands still until its guest has been told what is new."""
        self._watch = Stopwatch()
        self._busy = asyncio.Lock()  # held while the machine goes from one state to another
        self._host_seconds = 0.0
        # One that was saved has what it had then.
        self._memory = None if saved else machine.spec.memory
        self._memory_set_at = 0.0

    @property
    def session(self) -> Session:
        """The link to the guest, once `start` has returned."""
        if self._session is None:
            raise RuntimeError("the machine was not started")
        return self._session

    @property
    def is_copy(self) -> bool:
        """Whether it begins as a copy of a golden snapshot."""
        return self._golden is not None

    @property
    def is_answering(self) -> bool:
        """Whether its guest has been heard, and so can be kept."""
        return self._is_answering

    @property
    def is_saved(self) -> bool:
        """Whether it sleeps on disk. A copy that has not begun has nothing to sleep on."""
        is_unborn = self.is_copy and self._session is None
        return self.machine.state is MachineState.SAVED and not is_unborn

    async def start(self, attach: Callable[[GuestLink], None] = lambda _link: None) -> None:
        """Until the guest's agent has answered; one that was saved with a task in it answers
        `wake`, once its program is attached. `attach`: is called before any other that was saved
        goes on, to attach its programs. Raises HypervisorError, GuestError, HostDiskFullError."""
        async with self._busy:
            await self.machine.create()
            channel = await self.machine.start()
            link = await GuestLink.open(
                channel,
                silence_limit=self._limits.silence,
                beat=REPORT_PERIOD,
                attach_to=self._link_state(),
                host_name=self.machine.spec.host_name,
            )
            self._session = Session(self.machine, link)
            self._watch_session()
        await self._apply()
        if self._golden is not None:
            await self._wait_for(link.attach(None, fresh_for(self.machine.spec)))
        elif self.saved is None:
            await self._wait_for(_ready(link))
        elif self.saved.task is None:
            attach(link)
            await self.wake()

    def _link_state(self) -> dict[str, object] | None:
        origin = self._golden or self.saved
        return origin.link if origin else None

    async def wake(self) -> None:
        """Lets the saved guest go on, with what is new in it. Raises GuestError,
        HypervisorError."""
        word = self.session.link.attach(None, fresh_for(self.machine.spec), self._let_run)
        await self._wait_for(word)

    async def _let_run(self) -> None:
        self._must_wake = False
        await self._apply()

    async def _wait_for(self, word: Coroutine[None, None, object]) -> None:
        """The agent's first word, within a limit that does not pass while the machine is paused."""
        await self.guard(self._within_limit(word))
        self._is_answering = True
        if not self._should_pause:
            self.session.link.expect_beats(self._limits.silence)

    async def _within_limit(self, word: Coroutine[None, None, object]) -> None:
        limit = self._limits.boot
        answer = asyncio.ensure_future(word)
        alarm = asyncio.ensure_future(self._watch.reach(self._watch.elapsed + limit))
        try:
            await asyncio.wait((answer, alarm), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise GuestNeverBootedError(
                    f"the guest's agent said nothing within {limit:g} s of the start",
                    hint="the host may be too busy, or too slow",
                )
            answer.result()
        finally:
            answer.cancel()
            alarm.cancel()
            await asyncio.gather(answer, alarm, return_exceptions=True)

    async def guard(self, work: Coroutine[None, None, T]) -> T:
        """The result of `work`, or the error that ended the machine or its link."""
        return await self.session.guard(work)

    async def suspend(self) -> None:
        """Pauses the machine, as soon as there is one; again is harmless."""
        self._should_pause = True
        self._watch.pause()
        await self._apply()

    async def resume(self) -> None:
        """The opposite of `suspend`."""
        self._should_pause = False
        self._watch.resume()
        await self._apply()

    async def _apply(self) -> None:
        async with self._busy:
            link = self._session.link if self._session else None
            if link is None or self.machine.state not in (
                MachineState.RUNNING,
                MachineState.PAUSED,
            ):
                return
            if self._should_pause or self._must_wake:
                link.expect_beats(None)
                await self.machine.pause()
            else:
                was_paused = self.machine.state is MachineState.PAUSED
                await self.machine.resume()
                if self._is_answering:
                    link.expect_beats(self._limits.silence)
                if was_paused and (self._is_answering or self.saved is not None):
                    link.set_clock()

    def set_clock(self) -> None:
        """The guest gets the host's time, if it runs."""
        if self._is_answering and self.machine.state is MachineState.RUNNING:
            self.session.link.set_clock()

    async def keep(
        self, number: int, look: Callable[[], T], *, last: bool, hold: bool = False
    ) -> tuple[Checkpoint, dict[str, object], T]:
        """Puts the machine on disk as it is now; with `last` it ends, else it goes on. `hold`: its
        programs stand still meanwhile, as they do anyway if it is the last time; what then goes
        on from the checkpoint repeats nothing that another copy has done.

        Returns the checkpoint, which has that number, the guest link's state, and what `look`
        gives while the guest is quiet. Raises HypervisorError, GuestError: then it is watched as
        before, and after a `last` that failed `go_on` lets it run.
        """
        async with self._busy:
            link = self.session.link
            await self.machine.resume()  # a paused agent cannot finish its last frame
            self._is_quiet = True
            begin = time.monotonic()
            try:
                await link.quiesce(self._limits.stop, hold=last or hold)
            except GuestError:
                if last:
                    self._is_answering = False
                else:
                    await self._go_on(link)
                raise
            state, seen = link.state(), look()
            try:
                if last:
                    await self._stop_watching()
                    self.host_seconds()  # the last chance to look
                    kept = await self.machine.save(number)
                    link.close()
                else:
                    kept = await self.machine.checkpoint(number)
            except BaseException:
                if last:
                    self._watch_session()
                # What went wrong is the cause, not what it makes go wrong here.
                with suppress(GuestError, HypervisorError):
                    await self._go_on(link)
                raise
            if not last:
                await self._go_on(link)
                if hold:
                    kept = kept._replace(pause=time.monotonic() - begin)
            return kept, state, seen

    async def _go_on(self, link: GuestLink) -> None:
        self._is_quiet = False
        await self.machine.resume()
        try:
            await link.attach(self._limits.stop)
        finally:  # else nobody would ever miss it
            link.expect_beats(self._limits.silence)

    async def go_on(self) -> None:
        """Lets it run, whatever had been begun with it. Raises HypervisorError, GuestError."""
        async with self._busy:
            if self._is_quiet:
                await self._go_on(self.session.link)
                self._is_answering = True
        await self.resume()

    async def close(self, *, keep: bool = False) -> None:
        """Ends the machine, and unless `keep` or it sleeps removes what it had on disk."""
        await self._stop_watching()
        self.host_seconds()  # the last chance to look
        if self._session is not None:
            self._session.link.close()
        if keep:
            await self.machine.stop()
        elif not self.is_saved:
            await self.machine.destroy()

    async def kill(self) -> None:
        """Ends the machine at once, whatever else is being done to it."""
        await self._stop_watching()
        self.host_seconds()
        await self.machine.stop()

    def _watch_session(self) -> None:
        self._watcher = asyncio.ensure_future(self.session.watch())

    async def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None

    def host_seconds(self) -> float:
        """CPU time that the hypervisor has used for it in this process's life."""
        used = sum(own_usage(pid)[0] for pid in self.machine.process_ids())
        self._host_seconds = max(self._host_seconds, used)
        return self._host_seconds

    def resident(self) -> int:
        """Bytes of memory that it has now."""
        return sum(own_usage(pid)[1] for pid in self.machine.process_ids())

    @property
    def process_id(self) -> int | None:
        """The hypervisor's."""
        return next(iter(self.machine.process_ids()), None)

    @property
    def size(self) -> int:
        """Bytes of memory that it was made with."""
        return self.machine.spec.memory

    async def hold_memory(
        self, choose: Callable[[GuestMemory | None], int | None], settling: float
    ) -> int | None:
        """Gives the guest as many bytes as `choose` says, seeing what the guest says of itself;
        not within `settling` seconds of what it was given before. Returns what it has now, None
        where it was left alone. Raises HypervisorError."""
        async with self._busy:
            if self.machine.state not in (MachineState.RUNNING, MachineState.PAUSED):
                return None
            size = choose(None)
            if size is None:
                guest = await self.machine.memory()
                if guest is None or guest.at < self._memory_set_at + settling:
                    return None
                size = choose(guest)
            if size is None:
                return None
            # A little less is not worth the guest's time.
            if self._memory is None or not self._memory - _LITTLE < size <= self._memory:
                await self.machine.set_memory(size)
                self._memory, self._memory_set_at = size, time.time()
            return self._memory

    async def connect_network(self, *, connected: bool) -> None:
        """Plugs the guest's network cable in or pulls it, if it has a card."""
        if self.machine.spec.network and self._session is not None:
            await self.machine.connect_network(connected=connected)


async def _ready(link: GuestLink) -> None:
    await link.ready
