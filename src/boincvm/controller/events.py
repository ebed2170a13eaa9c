"""What happens to guests, machines and commands, in one numbered row that anybody can follow."""

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import NamedTuple

from boincvm.json_value import Json

KEPT = 10_000
"""The last events; who asks for older ones is told from which number on there are some."""


class Event(NamedTuple):
    """number: grows by one. at: seconds since 1970. vm: the guest's id, None where it is about
    none. text: one line for people; more: the same for programs."""

    number: int
    at: float
    kind: str
    vm: str | None
    text: str
    more: Mapping[str, Json] = {}

    def table(self) -> dict[str, Json]:
        """Return it fit for JSON."""
        first: dict[str, Json] = {"number": self.number, "at": self.at, "kind": self.kind}
        return {**first, "vm": self.vm, "text": self.text, **self.more}


class EventLog:
    """The last events. `add` never waits; who follows too slowly misses what is not kept."""

    def __init__(self, first: int = 1, keep: Callable[[Event], None] = lambda _event: None) -> None:
        """`first`: the number of the next one; `keep` is told of each."""
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._next = first
        self._keep = keep
        self._news = asyncio.Event()
        self._is_closed = False

    @property
    def last(self) -> int:
        """Return the number of the newest event; 0 where there was none."""
        return self._next - 1

    def add(
        self, kind: str, vm: str | None, text: str, more: Mapping[str, Json] | None = None
    ) -> None:
        event = Event(self._next, time.time(), kind, vm, text, more or {})
        self._next += 1
        self._events.append(event)
        self._keep(event)
        self._wake()

    def load(self, events: list[Event]) -> None:
        """Take up those of a former life, the oldest one first."""
        self._events.extend(events)

    def after(self, number: int, most: int = KEPT) -> list[Event]:
        """Return at most so many of those that came after it, the oldest ones first."""
        # Those of a former life have gaps: not all are kept on disk.
        begin = bisect_right(self._events, number, key=lambda event: event.number)
        return [self._events[at] for at in range(begin, min(begin + most, len(self._events)))]

    async def follow(self, after: int) -> AsyncGenerator[Event, None]:
        """Yield those after number `after`, and all that come, until the log is closed."""
        while True:
            found = self.after(after, 256)
            for event in found:
                yield event
                after = event.number
            if not found:
                if self._is_closed:
                    return
                await self._news.wait()

    def close(self) -> None:
        """Notice that nothing comes any more: who follows has come to the end."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
