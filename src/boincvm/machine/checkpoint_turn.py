"""One checkpoint at a time on a host: each of them writes memory and disk as fast as it can."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from boincvm.durations import format_duration
from boincvm.errors import HypervisorError, host_error
from boincvm.host.files import open_regular, write_at
from boincvm.host.lock_queue import wait_for_lock
from boincvm.host.own_files import make_directory
from boincvm.paths import cache_directory

_LOCK = "checkpoint.lock"
"""In the cache directory; held by the process that makes a checkpoint on this host.

It contains the id of the process that has held it last.
"""
_LONG = 300.0
"""Seconds of waiting after which the log says for whom: that process may be stopped, by Ctrl-Z."""
_LOG = logging.getLogger("boincvm.machine")


def turn_lock() -> Path:
    """Return the path of the lock file."""
    return cache_directory() / _LOCK


class CheckpointTurn:
    """Lets one machine make a checkpoint while no other one of this user does."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._refusals = 0
        self._why = ""

    @property
    def is_waiting(self) -> bool:
        """Tell whether a save waits for its turn."""
        return bool(self._waits)

    def give_up(self, why: str) -> None:
        """End every wait for a turn; a turn that has begun is not affected."""
        self._why = why
        while self._waits:  # each only once, for what has expired cannot be changed
            self._waits.pop().reschedule(0)

    @contextmanager
    def not_waited_for(self, why: str) -> Iterator[None]:
        """End every wait for a turn, and let none begin in the block; a free turn may be taken."""
        self._refusals += 1
        self.give_up(why)
        try:
            yield
        finally:
            self._refusals -= 1

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait until no other machine is being checkpointed, and keep others waiting.

        Raises HypervisorError if the wait is given up, or the lock refused; HostDiskFullError.
        """
        descriptor = await self._wait()
        try:
            yield
        finally:
            os.close(descriptor)

    async def _wait(self) -> int:
        wait = asyncio.timeout(0 if self._refusals else None)
        alarm = asyncio.get_running_loop().call_later(_LONG, _report_holder)
        try:
            make_directory(turn_lock().parent)
            async with wait:
                if not self._refusals:  # what has expired cannot be given up
                    self._waits.add(wait)
                try:
                    descriptor = await wait_for_lock(turn_lock())
                finally:
                    self._waits.discard(wait)
        except OSError as error:  # a TimeoutError is one, too
            if wait.expired():
                what = f"it waited for the checkpoint of another machine: {self._why}"
                raise HypervisorError(what) from error
            raise host_error("the checkpoint cannot begin", error, HypervisorError) from error
        finally:
            alarm.cancel()
        with suppress(OSError):  # it is only for the log
            write_at(descriptor, b"%-20d\n" % os.getpid(), 0)
        return descriptor


def _report_holder() -> None:
    try:
        with open_regular(turn_lock()) as file:
            holder = str(int(file.read(20)))
    except (OSError, ValueError):
        holder = "unknown"
    _LOG.warning(
        "a checkpoint has waited for that of another machine for %s; the id of the process that"
        " makes it is %s: is it stopped?",
        format_duration(_LONG),
        holder,
    )
