"""The numbered log of what happens to guests, machines and commands, which can be followed."""

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import NamedTuple

from boincvm.json_value import Json

MOST_EVENTS = 10_000
"""How many of the last events are kept."""


class Event(NamedTuple):
    """Something that has happened."""

    number: int
    """Grows by one with each event."""
    at: float
    """Seconds since 1970."""
    kind: str
    vm: str | None
    """The guest's id, or None if the event is not about a guest."""
    text: str
    """One line for people."""
    more: Mapping[str, Json] = {}
    """The same for programs."""

    def table(self) -> dict[str, Json]:
        """Return the event as a JSON object."""
        first: dict[str, Json] = {"number": self.number, "at": self.at, "kind": self.kind}
        return {**first, "vm": self.vm, "text": self.text, **self.more}


class EventLog:
    """The last events. `add` never waits; a reader that is too slow misses events."""

    def __init__(
        self, first: int = 1, store: Callable[[Event], None] = lambda _event: None
    ) -> None:
        """Start a log whose next event has the number `first`; `store` receives each event."""
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._next = self._first = first
        self._store = store
        self._news = asyncio.Event()
        self._is_closed = False

    @property
    def last(self) -> int:
        """Return the number of the newest event, or 0 if there is none."""
        return self._next - 1

    @property
    def added(self) -> int:
        """Return how many events this log was given by `add`."""
        return self._next - self._first

    def add(
        self, kind: str, vm: str | None, text: str, more: Mapping[str, Json] | None = None
    ) -> None:
        event = Event(self._next, time.time(), kind, vm, text, more or {})
        self._next += 1
        self._events.append(event)
        self._store(event)
        self._wake()

    def load(self, events: list[Event]) -> None:
        """Add the stored events of an earlier controller, oldest first."""
        self._events.extend(events)

    def list_after(self, number: int, most: int = MOST_EVENTS) -> list[Event]:
        """Return up to `most` of the events after that number, oldest first."""
        # Stored events have gaps in their numbers: not all are kept on disk.
        begin = bisect_right(self._events, number, key=lambda event: event.number)
        return [self._events[at] for at in range(begin, min(begin + most, len(self._events)))]

    async def follow(self, after: int) -> AsyncGenerator[Event, None]:
        """Yield the events after number `after`, and new ones until the log is closed."""
        while True:
            found = self.list_after(after, 256)
            for event in found:
                yield event
                after = event.number
            if not found:
                if self._is_closed:
                    return
                await self._news.wait()

    def close(self) -> None:
        """End the log, and with it every `follow`."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
