"""Whether guests are there: PING to each, and how long its PONG takes."""

import asyncio
import secrets
import time
from collections.abc import Iterable

from boincvm.controller.protocol.messages import Post, Word, encode_word


class Pings:
    """`post` sends a word to a guest, and may lose it."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._open: dict[tuple[str, str], asyncio.Future[float]] = {}

    async def ping(self, guests: Iterable[str], within: float) -> dict[str, float | None]:
        """Seconds until each answered; None for those that did not within `within` seconds."""
        loop = asyncio.get_running_loop()
        waiting: dict[str, asyncio.Future[float]] = {}
        sign, begin = secrets.token_hex(8), time.perf_counter()
        for guest in guests:
            waiting[guest] = self._open[guest, sign] = loop.create_future()
            self._post(guest, encode_word("PING", {"sign": sign}))
        try:
            if waiting:
                await asyncio.wait(waiting.values(), timeout=within)
        finally:
            for guest in waiting:
                del self._open[guest, sign]
        return {
            guest: answer.result() - begin if answer.done() else None
            for guest, answer in waiting.items()
        }

    def take(self, guest_id: str, word: Word) -> None:
        """A PONG; one that nobody waits for is harmless."""
        answer = self._open.get((guest_id, str(word.table.get("sign"))))
        if answer is not None and not answer.done():
            answer.set_result(time.perf_counter())
