"""Runs a job.xml under a BOINC client: its tasks in order, obeying the client at any moment."""

import asyncio
import signal
from enum import Enum, auto

from boincvm.boinc import BoincExit, Client, Event, Heartbeat
from boincvm.boinc.init_data import InitDataError
from boincvm.errors import BoincvmError
from boincvm.exit_codes import exit_code_for_signal
from boincvm.host.inherited import not_ignored
from boincvm.host.signals import TERMINATION_SIGNALS, add_signal_handlers
from boincvm.host.supervised import ABORT_GRACE
from boincvm.wrapper.clock_watch import ClockWatch
from boincvm.wrapper.log import log
from boincvm.wrapper.outcome import (
    End,
    Finished,
    Left,
    Postponed,
    end_of,
    error_of_system,
)
from boincvm.wrapper.processor_limit import ProcessorLimit, share_left_to_us
from boincvm.wrapper.report import ClientReport
from boincvm.wrapper.slot.progress import JobProgress
from boincvm.wrapper.task_errors import TemporaryExitError
from boincvm.wrapper.tasks.sequence import TaskSequence

STANDALONE_PERIOD = 1.0
"""Seconds between two reports without a client; with one it is the same."""
SAVE_LIMIT = 45.0
"""Seconds from the client's quit message to our end; the client waits 60."""


class _Order(Enum):
    QUIT = auto()
    ABORT = auto()


class ClientRun:
    """One run of a job, either the first or one that continues an earlier run."""

    def __init__(
        self, client: Client, steps: TaskSequence, progress: JobProgress, report: ClientReport
    ) -> None:
        self._client = client
        self._steps = steps
        self._progress = progress
        self._report = report
        self._clock = ClockWatch()
        self._is_suspended = False
        self._network = True
        self._state_changed = asyncio.Event()
        self._limit = ProcessorLimit(self._share, self._state_changed.set)
        loop = asyncio.get_running_loop()
        self._fault: asyncio.Future[None] = loop.create_future()
        self._signalled: asyncio.Future[_Order] = loop.create_future()
        self._signal = 0
        self._is_aborted = False

    async def run(self) -> End:
        """Run the job; return how it ended. Unexpected exceptions propagate."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._handle_fault)
        add_signal_handlers(not_ignored(TERMINATION_SIGNALS), self._receive)  # such as at shutdown
        self._client.on_heartbeat = self._beat
        ticks = asyncio.ensure_future(self._tick())
        work = asyncio.ensure_future(self._steps.run())
        orders = asyncio.ensure_future(self._handle_events())
        states = asyncio.ensure_future(self._apply_state())
        checkpoints = asyncio.ensure_future(self._steps.keep_checkpoints())
        memory = asyncio.ensure_future(self._steps.hold_memory())
        limit = asyncio.ensure_future(self._limit.run())
        others = (states, checkpoints, memory, limit, self._fault)
        everything = (work, orders, self._signalled, *others)
        end: End | None = None
        try:
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            end = await self._outcome(work, orders, limit, others)
        finally:
            self._client.on_heartbeat = None
            for future in (*everything, ticks):
                future.cancel()
            # Daemons end at the same time: a program may use all the time that it has to end.
            ended = asyncio.ensure_future(self._steps.end_on_host())
            hurry = asyncio.ensure_future(self._hurry())
            await asyncio.gather(ended, ticks, *everything, return_exceptions=True)
            hurry.cancel()
            await asyncio.gather(hurry, return_exceptions=True)
            await self._close(keep=end is not None and end.keeps_machines)
        await self._report_last(end)
        return end

    async def _report_last(self, end: End) -> None:
        """Tell the client what the task used in total, and how far a restart would go back."""
        is_restarted = isinstance(end, Postponed) or end == Left(BoincExit.SUCCESS)
        try:
            self._report.send()
            if is_restarted:
                await self._report.hand_over_checkpoint()
        except (BoincvmError, OSError) as error:
            log(f"the last report is incomplete: {error}")

    async def _close(self, *, keep: bool) -> None:
        try:
            await self._steps.close(keep=keep)
        except (BoincvmError, OSError) as error:  # it does not change how the task ended
            log(f"a part of the task could not be ended: {error}")

    async def _outcome(
        self,
        work: asyncio.Future[None],
        orders: asyncio.Future[_Order],
        limit: asyncio.Future[None],
        others: tuple[asyncio.Future[None], ...],
    ) -> End:
        """Return how the task ends, once a future is done. `others` end only by an error."""
        try:
            if not work.done():
                for order in (orders, self._signalled):
                    if order.done():
                        orders.cancel()  # `_leave` handles a later abort
                        limit.cancel()  # nothing is suspended or resumed while it is saved
                        return await self._leave(order.result())
            next(future for future in (work, *others) if future.done()).result()
            self._report.send()
            return Finished(BoincExit.SUCCESS, self._steps.finish_message)
        except TemporaryExitError as error:
            return Postponed(error.delay, error.message, notice=error.notice, keeps_machines=False)
        except BoincvmError as error:
            return end_of(error, self._progress.count_failure())
        except OSError as error:
            failure = error_of_system("the host's system refused a request", error)
            return end_of(failure, self._progress.count_failure())

    # Messages from the client.

    async def _handle_events(self) -> _Order:
        """Handle the client's messages until it wants us to end; return how."""
        while True:
            match await self._next_event():
                case Event.SUSPEND:
                    self._is_suspended = True
                    self._limit.recheck()
                case Event.RESUME:
                    self._is_suspended = False
                    self._limit.recheck()
                case Event.NETWORK_SUSPENDED:
                    self._network = False
                case Event.NETWORK_RESUMED:
                    self._network = True
                case Event.TRICKLE_DOWN | Event.UPLOAD_STATUS:
                    self._steps.notify_guest()
                case Event.REREAD_PREFERENCES:
                    self._steps.preferences_changed()
                    self._limit.recheck()
                case Event.QUIT:
                    log("asked to quit by the client")
                    return _Order.QUIT
                case Event.CLIENT_GONE:
                    log("the client is gone")
                    return _Order.QUIT
                case Event.ABORT:
                    return _Order.ABORT
            self._state_changed.set()

    async def _wait_for_abort(self) -> None:
        """Wait until the client, which has told us to quit, aborts the task."""
        while not self._is_aborted:
            if await self._next_event() is Event.ABORT:
                self._is_aborted = True
                log("aborted by the client")

    async def _hurry(self) -> None:
        await self._wait_for_abort()
        await self._steps.end_on_host(ABORT_GRACE)

    def _receive(self, number: int) -> None:
        """Handle a signal that tells us to end: save once, and ignore further signals."""
        if not self._signalled.done():
            log(f"asked to end by {signal.Signals(number).name}")
            self._signal = number
            self._signalled.set_result(_Order.QUIT)

    async def _next_event(self) -> Event:
        try:
            return await self._client.next_event()
        except InitDataError as error:
            log(f"preferences stay unchanged: {error.message}")
            return Event.REREAD_PREFERENCES

    async def _apply_state(self) -> None:
        """Suspend and resume outside `_handle_events`, so that a slow pause delays no abort."""
        while True:
            await self._state_changed.wait()
            self._state_changed.clear()
            suspended = self._is_suspended or self._limit.is_resting
            await self._steps.apply(suspended=suspended, network=self._network)

    def _share(self) -> float:
        """Return the share of the time in which the task runs, for `ProcessorLimit`."""
        return 1.0 if self._is_suspended else share_left_to_us(self._client.init_data)

    async def _leave(self, order: _Order) -> End:
        try:
            self._report.send()
            if order is _Order.ABORT:
                log("aborted by the client")
            elif not await self._save_unless_aborted():
                order = _Order.ABORT
            if order is _Order.ABORT:
                await self._steps.kill()
        except (BoincvmError, OSError) as error:  # the client wants us to end anyway
            log(f"not everything could be saved: {error}")
        if order is _Order.ABORT:
            return Left(BoincExit.ABORTED_BY_CLIENT, keeps_machines=False)
        for line in self._steps.losses():
            log(line)
        if self._signal and self._client.is_standalone:
            return Left(exit_code_for_signal(self._signal))
        return Left(BoincExit.SUCCESS)

    async def _save_unless_aborted(self) -> bool:
        """Save the machines; return False if the client aborts the task meanwhile.

        Raises BoincvmError, OSError.
        """
        saved = asyncio.ensure_future(self._steps.save())
        aborted = asyncio.ensure_future(self._wait_for_abort())
        try:
            await asyncio.wait(
                (saved, aborted), timeout=SAVE_LIMIT, return_when=asyncio.FIRST_COMPLETED
            )
            if saved.done():
                saved.result()
            elif not aborted.done():
                log(f"saving took more than {SAVE_LIMIT:g} s and was abandoned")
        finally:
            for future in (saved, aborted):
                future.cancel()
            try:
                if not saved.done():  # it would wait for what the hypervisor was told to do
                    await self._steps.kill_machines()
            finally:
                await asyncio.gather(saved, aborted, return_exceptions=True)
        return not self._is_aborted  # which may have come as the machines had just been saved

    # Once a second.

    def _beat(self, _: Heartbeat) -> None:
        try:
            if self._clock.has_jumped():  # the guests' clocks stood still with ours
                self._steps.set_clocks()
            self._report.send()
        except (BoincvmError, OSError) as error:
            self._fail(error)

    async def _tick(self) -> None:
        """Report once a second without a client, because there is no heartbeat then.

        Programs make checkpoints all the same.
        """
        while self._client.is_standalone:
            await asyncio.sleep(STANDALONE_PERIOD)
            self._beat(Heartbeat())

    def _handle_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException) and "future" not in context:
            self._fail(error)
        else:
            loop.default_exception_handler(context)

    def _fail(self, error: BaseException) -> None:
        if not self._fault.done():
            self._fault.set_exception(error)
