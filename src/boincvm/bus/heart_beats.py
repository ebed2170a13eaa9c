"""STOMP's heart-beats for either side, with one timer that is reset when it fires."""

import asyncio
import re
from collections.abc import Callable
from typing import Self

_HEADER = re.compile(r"(\d{1,9}),(\d{1,9})")
_PATIENCE = 2.5
"""Number of intervals that may pass in silence. ActiveMQ sends its first beat after two."""
_LEAST = 100
"""Milliseconds; a peer that asks for more frequent beats gets them at this interval."""


class HeartBeats:
    """Sends heart-beats and notices when the other side falls silent."""

    def __init__(
        self,
        send: float | None,
        expect: float | None,
        beat: Callable[[], None],
        silent: Callable[[], None],
    ) -> None:
        """Start; `send` and `expect` are seconds between beats, or None for no beats.

        `silent` is called once if nothing is heard for two and a half intervals.
        """
        self._send = send
        self._expect = expect
        self._beat = beat
        self._silent = silent
        self._loop = asyncio.get_running_loop()
        self._last_received = self._last_sent = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._set_timer()

    @classmethod
    def agreed(
        cls, theirs: str | None, ours: int, beat: Callable[[], None], silent: Callable[[], None]
    ) -> Self | None:
        """Return the heart-beats that both sides agree on, or None if the header is invalid.

        `theirs` is the other side's header, `ours` the milliseconds that we can send and want to
        receive, 0 for none.
        """
        match = _HEADER.fullmatch(theirs or "0,0")
        if match is None:
            return None
        can, want = int(match[1]), int(match[2])
        send = max(ours, want, _LEAST) / 1e3 if ours and want else None
        expect = max(ours, can, _LEAST) / 1e3 if ours and can else None
        return cls(send, expect, beat, silent)

    def received(self) -> None:
        """Note that the other side has sent something."""
        self._last_received = self._loop.time()

    def _set_timer(self) -> None:
        dues = []
        if self._send is not None:
            dues.append(self._last_sent + self._send)
        if self._expect is not None:
            dues.append(self._last_received + self._expect * _PATIENCE)
        self._timer = self._loop.call_at(min(dues), self._check) if dues else None

    def _check(self) -> None:
        now = self._loop.time()
        if self._expect is not None and now >= self._last_received + self._expect * _PATIENCE:
            self._timer = None
            self._silent()
            return
        if self._send is not None and now >= self._last_sent + self._send:
            self._last_sent = now
            self._beat()
        self._set_timer()

    def close(self) -> None:
        """Stop the beats; calling it again is harmless."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
