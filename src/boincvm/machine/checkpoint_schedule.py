"""The times at which running machines are checkpointed."""

import asyncio
import os
from collections.abc import Callable

from boincvm.stopwatch import Stopwatch

LEAST_PERIOD = 60.0
"""Minimum time between two periodic checkpoints, in seconds of running.

The guest runs on meanwhile and only changes are written, but a volunteer's disk must not be worn
out.
"""
LEAST_PAUSE = 10.0
"""Minimum time in seconds between a checkpoint and one that a program requests."""
JITTER = 0.1
"""Largest fraction by which a period is lengthened at random, so that tasks that were started
together do not all use the disk at the same time."""


def _random() -> float:
    return int.from_bytes(os.urandom(2)) / (1 << 16)


class CheckpointSchedule:
    """Decides when the next checkpoint is due: periodically, or on request."""

    def __init__(self, period: float, random: Callable[[], float] = _random) -> None:
        """Take the `period` in seconds that the user asks for; suspended time does not count.

        `random` returns a number from 0 to 1.
        """
        self.watch = Stopwatch()
        self._period = max(period, LEAST_PERIOD)
        self._random = random
        self._last = 0.0
        self._suggestion = asyncio.Event()
        self._order = asyncio.Event()
        self._orders: list[asyncio.Future[None]] = []
        self._answered_next: list[asyncio.Future[None]] = []

    def suggest(self) -> None:
        """Take note that the program considers this a good moment for a checkpoint."""
        self._suggestion.set()

    async def order(self) -> None:
        """Request a checkpoint for the user and wait for it. Raises what `conclude` is given."""
        made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._orders.append(made)
        self._order.set()
        await made

    def end(self, error: Exception) -> None:
        """Fail all requests with `error`, because no more checkpoints will be made."""
        self._answered_next, self._orders = [*self._answered_next, *self._orders], []
        self.conclude(error)

    def conclude(self, error: Exception | None) -> None:
        """Answer those who requested the checkpoint: it is made, or `error` says why it is not."""
        taken, self._answered_next = self._answered_next, []
        for made in taken:
            if made.done():
                continue
            if error is None:
                made.set_result(None)
            else:
                made.set_exception(error)

    async def due(self) -> None:
        """Wait until it is time for the next checkpoint."""
        period = self._period * (1 + JITTER * self._random())
        ways = [
            asyncio.ensure_future(self.watch.reach(self._last + period)),
            asyncio.ensure_future(self._suggested()),
            asyncio.ensure_future(self._order.wait()),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        self._last = self.watch.elapsed
        self._suggestion.clear()
        self._order.clear()
        # Requests made from now on are answered by the next checkpoint, not by this one.
        self._answered_next, self._orders = [*self._answered_next, *self._orders], []

    async def _suggested(self) -> None:
        await self._suggestion.wait()
        if self._last:
            await self.watch.reach(self._last + LEAST_PAUSE)
