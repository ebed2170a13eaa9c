"""When machines are kept on disk while they run."""

import asyncio

from boincvm.wrapper.stopwatch import Stopwatch

LEAST_PERIOD = 600.0
"""Seconds of running between two checkpoints: each writes all memory that the guest uses, and a
volunteer's disk is not ours to wear out. vboxwrapper's default is the same."""
LEAST_PAUSE = 10.0
"""Seconds between two that a program has asked for."""


class CheckpointTimes:
    """`period`: the client's, in seconds; what is suspended does not count."""

    def __init__(self, period: float) -> None:
        self.watch = Stopwatch()
        self._period = max(period, LEAST_PERIOD)
        self._last = 0.0
        self._wish = asyncio.Event()

    def wish(self) -> None:
        """The program says that this is a good moment."""
        self._wish.set()

    async def due(self) -> None:
        """Until it is time for the next one."""
        by_time = asyncio.ensure_future(self.watch.reach(self._last + self._period))
        by_wish = asyncio.ensure_future(self._wished())
        try:
            await asyncio.wait((by_time, by_wish), return_when=asyncio.FIRST_COMPLETED)
        finally:
            by_time.cancel()
            by_wish.cancel()
            await asyncio.gather(by_time, by_wish, return_exceptions=True)
        self._last = self.watch.elapsed
        self._wish.clear()

    async def _wished(self) -> None:
        await self._wish.wait()
        if self._last:
            await self.watch.reach(self._last + LEAST_PAUSE)
