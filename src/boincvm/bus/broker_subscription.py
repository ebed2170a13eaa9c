"""A peer's subscriptions to the embedded broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from boincvm.bus.queues import Queued
from boincvm.bus.versions import message_rest

if TYPE_CHECKING:
    from boincvm.bus.broker_connection import BrokerConnection


class TopicSubscription:
    """A subscription to a topic: each message is sent at most once, so an ACK has no effect."""

    def __init__(self, connection: BrokerConnection, pattern: str, line: bytes, mode: str) -> None:
        """Create one; `line` is the header `subscription` of each message, or empty."""
        self.version = connection.version
        self._connection = connection
        self._pattern = pattern
        self._head = b"MESSAGE\n" + line
        self.wants_answers = mode != "auto"

    def open(self) -> None:
        self._connection.broker.topics.add(self._pattern, self)

    def close(self) -> None:
        self._connection.broker.topics.remove(self._pattern, self)

    def deliver(self, shared: bytes) -> None:
        head = self._head
        if self.wants_answers and self.version == "1.2":
            head += b"ack:topic\n"
        self._connection.write(head + shared)


class QueueSubscription:
    """A subscription to a queue.

    When it closes, its unacknowledged messages go to other consumers.
    """

    def __init__(self, connection: BrokerConnection, name: str, line: bytes, mode: str) -> None:
        self._connection = connection
        self._name = name
        self._head = b"MESSAGE\n" + line
        self._mode = mode
        self._waiting: dict[str, Queued] = {}
        self.queue = connection.broker.queue(name)

    def open(self) -> None:
        self.queue.add(self)

    def close(self) -> None:
        self.queue.remove(self)
        waiting, self._waiting = list(self._waiting.values()), {}
        self.queue.give_back(waiting)
        self._connection.broker.tidy(self._name)

    @property
    def is_ready(self) -> bool:
        few = len(self._waiting) < self._connection.broker.limits.unacknowledged
        return few and self._connection.is_writable

    def deliver(self, message: Queued) -> None:
        broker, version = self._connection.broker, self._connection.version
        name = broker.next_id()
        headers = {**message.headers, "destination": message.destination, "message-id": name}
        if message.deliveries > 1:
            headers["redelivered"] = "true"
        if self._mode != "auto":
            self._waiting[name] = message
            if version == "1.2":
                headers["ack"] = name
        self._connection.write(self._head + message_rest(version, headers, message.body))

    def acknowledge(self, name: str, *, is_good: bool) -> bool:
        """Return True if the message belongs to this subscription; requeue it if not `is_good`."""
        if name not in self._waiting:
            return False
        names = [name]
        if self._mode == "client":  # in this mode an ACK or NACK is for all earlier messages, too
            order = list(self._waiting)
            names = order[: order.index(name) + 1]
        messages = [self._waiting.pop(name) for name in names]
        if is_good:
            self.queue.deliver()
        else:
            self.queue.give_back(messages)
        return True
