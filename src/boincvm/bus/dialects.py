"""How brokers differ: wildcards, slashes, extra headers and the host that a client names.

In all other parts of STOMP 1.2 the three agree.

Sources: https://www.rabbitmq.com/docs/stomp,
https://activemq.apache.org/components/classic/documentation/wildcards, and what
tests/bus/test_brokers.py has seen of RabbitMQ 3.10 and ActiveMQ 5.17.
"""

from typing import NamedTuple

from boincvm.bus.topics import REST, TOPIC


class Dialect(NamedTuple):
    """What is particular to one kind of broker. `*` stands for one word in all of them."""

    rest: str
    """Wildcard for any number of words."""
    host: str
    """The header `host` of CONNECT."""
    slash: str = "/"
    """What stands for a slash within a word."""
    adds: frozenset[str] = frozenset()
    """Headers that the broker adds to each message."""
    names_sender: bool = False
    """The broker itself names the sender of a message, which cannot be forged."""

    def destination(self, ours: str) -> str:
        """Translate our destination into the broker's form."""
        if self.slash == "/":
            return ours
        kind = len(TOPIC)  # both kinds have the same length
        return ours[:kind] + ours[kind:].replace("/", self.slash)

    def pattern(self, ours: str) -> str:
        """Translate our pattern into the broker's form."""
        if ours.endswith(REST):
            ours = ours.removesuffix(REST) + self.rest
        return self.destination(ours)

    def ours(self, destination: str) -> str:
        """Translate the broker's destination into our form.

        Of the characters in our words only the slash needs an escape.
        """
        return destination if self.slash == "/" else destination.replace(self.slash, "/")


EMBEDDED = Dialect(REST, "boincvm", names_sender=True)
RABBITMQ = Dialect("#", "/", slash="%2F")
ACTIVEMQ = Dialect(">", "localhost", adds=frozenset(("expires", "priority", "timestamp")))
DIALECTS = {"embedded": EMBEDDED, "rabbitmq": RABBITMQ, "activemq": ACTIVEMQ}
