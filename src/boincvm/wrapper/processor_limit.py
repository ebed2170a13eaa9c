"""Keeps a task within the volunteer's limit of processor time where the client leaves that to it.

A client does so itself, by suspending and resuming its tasks every few seconds, except for tasks
whose plan class contains "vbox": these it expects to be limited by VirtualBox.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from boincvm.boinc import InitData
from boincvm.wrapper.log import log

SHORTER = 1.0
"""Seconds that the shorter one of work and rest lasts, as with the client's own limit."""
_LEAST = 0.01
"""Smallest share: with less, a task would rest for hours."""
_LEFT_TO_THE_TASK = "vbox"


def share_left_to_us(init_data: InitData) -> float:
    """Return the share of the time in which the task may run; 1 if the client limits it."""
    if _LEFT_TO_THE_TASK not in init_data.plan_class:
        return 1.0
    return min(max(init_data.preferences.cpu_usage_limit / 100, _LEAST), 1.0)


def work_and_rest(share: float) -> tuple[float, float]:
    """Return for how many seconds a task works and then rests, so that it has this share."""
    longest = min(share, 1 - share)
    return SHORTER * share / longest, SHORTER * (1 - share) / longest


class ProcessorLimit:
    """Calls `changed` each time that the task has to rest, or to work again."""

    def __init__(self, share: Callable[[], float], changed: Callable[[], None]) -> None:
        self._share = share
        self._changed = changed
        self._news = asyncio.Event()
        self.is_resting = False
        self._reported = 1.0

    def recheck(self) -> None:
        """Take note that the share may have changed."""
        self._news.set()

    async def run(self) -> None:
        """Let the task work and rest until cancelled; it works all the time if its share is 1."""
        while True:
            self._news.clear()
            share = self._share()
            self._report(share)
            if share >= 1:
                self._rest(False)
                await self._news.wait()
                continue
            work, rest = work_and_rest(share)
            self._rest(False)
            await self._pass(work)
            if self._share() == share:
                self._rest(True)
                await self._pass(rest)

    def _report(self, share: float) -> None:
        if share < 1 and share != self._reported:
            self._reported = share
            log(f"it runs {share:.0%} of the time: the client does not limit its plan class")

    def _rest(self, is_resting: bool) -> None:
        if is_resting != self.is_resting:
            self.is_resting = is_resting
            self._changed()

    async def _pass(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
