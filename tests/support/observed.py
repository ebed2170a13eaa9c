"""A test waits until what it observes fulfils a condition."""

import asyncio
from collections.abc import Callable

LIMIT = 60.0
"""Seconds to wait for anything, at most."""


class Observed:
    """Something that sets `_news` with each change of what a test observes."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what has been observed fulfils `condition`."""
        async with asyncio.timeout(LIMIT):
            while not condition():
                self._news.clear()
                await self._news.wait()
