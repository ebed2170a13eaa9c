"""When machines are kept on disk while they run."""

import asyncio
import os
from collections.abc import Callable

from boincvm.stopwatch import Stopwatch

LEAST_PERIOD = 60.0
"""Seconds of running between two checkpoints: the guest runs on meanwhile, and what is written
is what has changed, but a volunteer's disk is not ours to wear out."""
LEAST_PAUSE = 10.0
"""Seconds between two that a program has asked for."""
JITTER = 0.1
"""A period is lengthened by up to so much of it, so that tasks that were started together do not
all want the disk at once."""


def _random() -> float:
    return int.from_bytes(os.urandom(2)) / (1 << 16)


class CheckpointSchedule:
    """`period`: the client's, in seconds; what is suspended does not count."""

    def __init__(self, period: float, random: Callable[[], float] = _random) -> None:
        """`random`: from 0 to 1."""
        self.watch = Stopwatch()
        self._period = max(period, LEAST_PERIOD)
        self._random = random
        self._last = 0.0
        self._wish = asyncio.Event()
        self._order = asyncio.Event()
        self._orders: list[asyncio.Future[None]] = []
        self._taken: list[asyncio.Future[None]] = []

    def wish(self) -> None:
        """The program says that this is a good moment."""
        self._wish.set()

    async def order(self) -> None:
        """The user wants one now; until it is made. Raises what `conclude` is given."""
        made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._orders.append(made)
        self._order.set()
        await made

    def end(self, error: Exception) -> None:
        """None will be made any more."""
        self._taken, self._orders = [*self._taken, *self._orders], []
        self.conclude(error)

    def conclude(self, error: Exception | None) -> None:
        """The one that was due is made, or `error` is why it is not."""
        taken, self._taken = self._taken, []
        for made in taken:
            if made.done():
                continue
            if error is None:
                made.set_result(None)
            else:
                made.set_exception(error)

    async def due(self) -> None:
        """Until it is time for the next one."""
        period = self._period * (1 + JITTER * self._random())
        ways = [
            asyncio.ensure_future(self.watch.reach(self._last + period)),
            asyncio.ensure_future(self._wished()),
            asyncio.ensure_future(self._order.wait()),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        self._last = self.watch.elapsed
        self._wish.clear()
        self._order.clear()
        # What is ordered from now on is not answered by the one that begins now.
        self._taken, self._orders = [*self._taken, *self._orders], []

    async def _wished(self) -> None:
        await self._wish.wait()
        if self._last:
            await self.watch.reach(self._last + LEAST_PAUSE)
