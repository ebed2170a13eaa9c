"""Queues of an embedded broker: a message goes to one of those who wait for it, in memory."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Protocol

MOST_DELIVERIES = 5
"""How often a message that nobody acknowledges is given to somebody."""


class Queued(NamedTuple):
    """A message; `deliveries`: how often it has been given to somebody."""

    destination: str
    headers: Mapping[str, str]
    body: bytes
    deliveries: int = 0

    @property
    def size(self) -> int:
        """Bytes, roughly."""
        return len(self.body) + sum(len(name) + len(text) for name, text in self.headers.items())


class Consumer(Protocol):
    """Somebody who waits at a queue."""

    @property
    def is_ready(self) -> bool:
        """Whether it can take another message now; when that changes it calls `Queue.deliver`."""

    def take(self, message: Queued) -> None:
        """It is its own now, unless it gives it back."""


class Queue:
    """Messages in order; who waits gets them in turn."""

    def __init__(self) -> None:
        self.messages: deque[Queued] = deque()
        self.size = 0
        self.dropped = 0
        self._consumers: deque[Consumer] = deque()

    @property
    def is_unused(self) -> bool:
        return not self.messages and not self._consumers

    def put(self, message: Queued) -> None:
        """At the end."""
        self.messages.append(message)
        self.size += message.size
        self.deliver()

    def give_back(self, messages: list[Queued]) -> None:
        """They were not acknowledged: they come first, in this order. One that was tried often
        enough is dropped."""
        for message in reversed(messages):
            if message.deliveries >= MOST_DELIVERIES:
                self.dropped += 1
            else:
                self.messages.appendleft(message)
                self.size += message.size
        self.deliver()

    def add(self, consumer: Consumer) -> None:
        self._consumers.append(consumer)
        self.deliver()

    def remove(self, consumer: Consumer) -> None:
        self._consumers.remove(consumer)

    def deliver(self) -> None:
        """As long as there are messages and somebody who can take one."""
        turns = len(self._consumers)
        while self.messages and turns > 0:
            consumer = self._consumers[0]
            self._consumers.rotate(-1)
            if not consumer.is_ready:
                turns -= 1
                continue
            turns = len(self._consumers)
            message = self.messages.popleft()
            self.size -= message.size
            consumer.take(message._replace(deliveries=message.deliveries + 1))
