"""Ping guests, and measure how long they take to answer."""

import asyncio
import secrets
import time
from collections.abc import Iterable

from boincvm.controller.protocol.envelope import Send
from boincvm.controller.protocol.guest import Ping, Pong


class Pings:
    """The pings that are not answered yet."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._open: dict[tuple[str, str], asyncio.Future[float]] = {}

    async def ping(self, guests: Iterable[str], within: float) -> dict[str, float | None]:
        """Ping guests; return the seconds until each answered, None if not within `within`."""
        loop = asyncio.get_running_loop()
        waiting: dict[str, asyncio.Future[float]] = {}
        sign, begin = secrets.token_hex(8), time.perf_counter()
        for guest in guests:
            waiting[guest] = self._open[guest, sign] = loop.create_future()
            self._send(guest, Ping({"sign": sign}).encode())
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

    def handle(self, guest_id: str, pong: Pong) -> None:
        """Take an answer, ignoring one that nobody waits for."""
        answer = self._open.get((guest_id, str(pong.fields.get("sign"))))
        if answer is not None and not answer.done():
            answer.set_result(time.perf_counter())
