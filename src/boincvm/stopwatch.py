"""A clock that stops while a job is suspended."""

import asyncio
from time import monotonic


class Stopwatch:
    """Measures running time in seconds; starts when constructed."""

    def __init__(self, elapsed: float = 0.0) -> None:
        self._before = elapsed
        self._since = monotonic()
        self._is_running = True
        self._changed = asyncio.Event()

    @property
    def elapsed(self) -> float:
        """Return the seconds of running time, without suspended time."""
        return self._before + (monotonic() - self._since if self._is_running else 0.0)

    def pause(self) -> None:
        """Stop the clock until `resume`. Idempotent."""
        self._switch(running=False)

    def resume(self) -> None:
        """Start the clock again. Idempotent."""
        self._switch(running=True)

    def _switch(self, *, running: bool) -> None:
        if self._is_running is not running:
            self._before, self._since = self.elapsed, monotonic()
            self._is_running = running
            self._changed.set()

    async def reach(self, seconds: float) -> None:
        """Wait until the watch shows `seconds`."""
        while (left := seconds - self.elapsed) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(left if self._is_running else None):
                    await self._changed.wait()
            except TimeoutError:
                pass  # it ran all the time: at most a rounding error is left
