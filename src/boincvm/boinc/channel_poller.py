"""Poll the channels from a thread that sleeps nearly all the time.

Shared memory that another process writes gives no event, so it must be polled. A thread that only
waits and looks costs about half of what a timer of the event loop does; the loop is woken only when
there is something to do (docs/boinc-library.md has the figures).
"""

import asyncio
import threading
import time
from collections.abc import Callable

from boincvm.boinc.channels import CHANNEL_SIZE, CONTROL, HEARTBEAT, TRICKLE_DOWN
from boincvm.boinc.poll_schedule import PollSchedule
from boincvm.host.pauses import Pauses

_CONTROL = CONTROL * CHANNEL_SIZE
_HEARTBEAT = HEARTBEAT * CHANNEL_SIZE
_TRICKLE_DOWN = TRICKLE_DOWN * CHANNEL_SIZE


class ChannelPoller:
    """Calls `handle`, in the event loop that created the poller, when there is something to do.

    That is when a message has arrived, or one of the channels in `outgoing` has become free.
    """

    def __init__(self, memory: memoryview, handle: Callable[[], None]) -> None:
        self.outgoing: tuple[int, ...] = ()
        """Numbers of the channels that messages are waiting for."""
        self._memory = memory
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._is_notified = False
        self._closed = False
        self._pauses = Pauses()
        self._thread = threading.Thread(target=self._run, name="boinc-channels", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        schedule = PollSchedule(time.monotonic(), time.thread_time)
        wait = 0.0
        while not self._pauses.wait(wait):
            beat = False
            if not self._is_notified and self._has_work():
                beat = self._memory[_HEARTBEAT] != 0
                self._is_notified = True
                try:
                    self._loop.call_soon_threadsafe(self._work)
                except RuntimeError:  # the loop was closed before the poller: nobody listens
                    return
            wait = schedule.polled(time.monotonic(), beat=beat)

    def _has_work(self) -> bool:
        memory = self._memory
        if memory[_CONTROL] or memory[_HEARTBEAT] or memory[_TRICKLE_DOWN]:
            return True
        # Usually nothing waits; and a generator takes as long as the rest of a poll.
        waiting = self.outgoing
        return bool(waiting) and any(not memory[number * CHANNEL_SIZE] for number in waiting)

    def _work(self) -> None:
        # This comes first: anything that arrives from here on is left to the next poll.
        self._is_notified = False
        if not self._closed:
            self._handle()

    def close(self) -> None:
        """Stop polling; `handle` is not called any more."""
        if self._closed:
            return
        self._closed = True
        self._pauses.end(self._thread)
