"""What brokers call things: wildcards, slashes, headers of their own, and the host that a client
names. All else of STOMP 1.2 is the same on all three.

Sources: https://www.rabbitmq.com/docs/stomp, https://activemq.apache.org/components/classic/documentation/wildcards,
and what tests/bus/test_brokers.py has seen of RabbitMQ 3.10 and ActiveMQ 5.17.
"""

from typing import NamedTuple

from boincvm.bus.topics import REST, TOPIC


class Dialect(NamedTuple):
    """rest: stands for any number of words; `*` is one word everywhere. host: of CONNECT.
    slash: stands for one within a word. adds: headers that the broker puts on each message.
    names_sender: the broker itself says who sent a message, and nobody else can."""

    rest: str
    host: str
    slash: str = "/"
    adds: frozenset[str] = frozenset()
    names_sender: bool = False

    def destination(self, ours: str) -> str:
        """`ours` as the broker wants it."""
        if self.slash == "/":
            return ours
        kind = len(TOPIC)  # both kinds are as long
        return ours[:kind] + ours[kind:].replace("/", self.slash)

    def pattern(self, ours: str) -> str:
        """`ours` as the broker wants it."""
        if ours.endswith(REST):
            ours = ours.removesuffix(REST) + self.rest
        return self.destination(ours)

    def ours(self, destination: str) -> str:
        """What the broker calls `destination`. Our words have no character that needs an escape
        but the slash."""
        return destination if self.slash == "/" else destination.replace(self.slash, "/")


EMBEDDED = Dialect(REST, "boincvm", names_sender=True)
RABBITMQ = Dialect("#", "/", slash="%2F")
ACTIVEMQ = Dialect(">", "localhost", adds=frozenset(("expires", "priority", "timestamp")))
DIALECTS = {"embedded": EMBEDDED, "rabbitmq": RABBITMQ, "activemq": ACTIVEMQ}
