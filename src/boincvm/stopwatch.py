"""Time that counts only while a job may run: a suspended hour is no hour of it."""

import asyncio
from time import monotonic


class Stopwatch:
    """Seconds of running time; starts with the constructor."""

    def __init__(self, elapsed: float = 0.0) -> None:
        self._before = elapsed
        self._since = monotonic()
        self._is_running = True
        self._changed = asyncio.Event()

    @property
    def elapsed(self) -> float:
        """Seconds, suspended time left out."""
        return self._before + (monotonic() - self._since if self._is_running else 0.0)

    def pause(self) -> None:
        """No time passes until `resume`; again is harmless."""
        self._switch(running=False)

    def resume(self) -> None:
        """Time passes again; again is harmless."""
        self._switch(running=True)

    def _switch(self, *, running: bool) -> None:
        if self._is_running is not running:
            self._before, self._since = self.elapsed, monotonic()
            self._is_running = running
            self._changed.set()

    async def reach(self, seconds: float) -> None:
        """Waits until `seconds` have passed on this watch."""
        while (left := seconds - self.elapsed) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(left if self._is_running else None):
                    await self._changed.wait()
            except TimeoutError:
                pass  # it ran all the time: what is left now is nothing, or a rounding
