"""Detect that the client is gone: an app must not outlive it.

BOINC's library checks every 10 s whether the client's process exists. Only if it does not know the
process does it rely on heartbeats: 30 s without one. While the process exists it ignores missing
heartbeats, since a client can be held up for long. (api/boinc_api.cpp, client_dead.) Here the
kernel reports the end immediately, if it can. So can we: after a pause in which this process could
not run, a heartbeat may lie unread in the shared memory, and counts if it is read a moment later.
"""

import asyncio
from collections.abc import Callable

from boincvm.host.processes import ProcessWatch, process_exists, watch_process

HEARTBEAT_LIMIT = 30.0
"""Seconds without a heartbeat after which a client of unknown process is looked for a last time."""
_LAST_LOOK = 1.0
"""Seconds in which a heartbeat may still be found then; a client sends one a second."""
_CHECK_PERIOD = 10.0
"""Seconds between checks if the kernel cannot report a process's end."""


class ClientLiveness:
    """Calls `gone` once when the client's process `pid` has ended; 0 if it is not known."""

    def __init__(self, pid: int, gone: Callable[[], None]) -> None:
        self._pid = pid
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._last_heartbeat = self._loop.time()
        self._is_last_look = False
        self._timer: asyncio.TimerHandle | None = None
        self._watch: ProcessWatch | None = None
        if not pid:
            self._timer = self._loop.call_later(HEARTBEAT_LIMIT, self._check_heartbeat)
        elif not self._watch_process():
            self._check_process()

    def heartbeat(self) -> None:
        """Note that the client has sent a heartbeat."""
        self._last_heartbeat = self._loop.time()
        self._is_last_look = False

    def _watch_process(self) -> bool:
        """Watch the process; return False if the kernel cannot report its end."""
        try:
            self._watch = watch_process(self._pid, self._end)
        except ProcessLookupError:
            self._loop.call_soon(self._end)
            return True
        return self._watch is not None

    def _check_process(self) -> None:
        if process_exists(self._pid):
            self._timer = self._loop.call_later(_CHECK_PERIOD, self._check_process)
        else:  # never call `gone` from within the constructor
            self._timer = self._loop.call_later(0, self._end)

    def _check_heartbeat(self) -> None:
        left = self._last_heartbeat + HEARTBEAT_LIMIT - self._loop.time()
        if left <= 0 and self._is_last_look:
            self._end()
            return
        self._is_last_look = left <= 0
        delay = _LAST_LOOK if self._is_last_look else left
        self._timer = self._loop.call_later(delay, self._check_heartbeat)

    def _end(self) -> None:
        self.close()
        self._gone()

    def close(self) -> None:
        """Stop watching; `gone` is not called any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.close()
