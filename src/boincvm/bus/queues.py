"""In-memory queues of the embedded broker: each message goes to one of the waiting consumers."""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Protocol

MOST_DELIVERIES = 5
"""How often an unacknowledged message is delivered."""


class Queued(NamedTuple):
    """A message in a queue."""

    destination: str
    headers: Mapping[str, str]
    body: bytes
    deliveries: int = 0
    """How often it has been delivered."""

    @property
    def size(self) -> int:
        """Return the approximate size in bytes."""
        return len(self.body) + sum(len(name) + len(text) for name, text in self.headers.items())


class Consumer(Protocol):
    """A subscriber that waits for messages of a queue."""

    @property
    def is_ready(self) -> bool:
        """Return True if it can take another message now.

        When that changes it calls `Queue.deliver`.
        """

    def deliver(self, message: Queued) -> None:
        """Take a message, which stays with this consumer unless it is given back."""


class Queue:
    """Messages in order, handed to the consumers in turn."""

    def __init__(self) -> None:
        self.messages: deque[Queued] = deque()
        self.size = 0
        self.dropped = 0
        self._consumers: deque[Consumer] = deque()

    @property
    def is_unused(self) -> bool:
        return not self.messages and not self._consumers

    def put(self, message: Queued) -> None:
        """Append a message."""
        self.messages.append(message)
        self.size += message.size
        self.deliver()

    def give_back(self, messages: list[Queued]) -> None:
        """Put unacknowledged messages back at the front, in this order.

        A message that was delivered too often is dropped.
        """
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
        """Deliver messages while there are some and a consumer is ready."""
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
            consumer.deliver(message._replace(deliveries=message.deliveries + 1))
