"""What brokers call things: wildcards, and the host that a client names.

Sources: https://www.rabbitmq.com/docs/stomp, https://activemq.apache.org/components/classic/documentation/wildcards.
"""

from typing import NamedTuple

from boincvm.bus.topics import REST


class Dialect(NamedTuple):
    """rest: stands for any number of words; `*` is one word everywhere. host: of CONNECT.
    names_sender: the broker itself says who sent a message, and nobody else can."""

    rest: str
    host: str
    names_sender: bool = False

    def pattern(self, ours: str) -> str:
        """`ours` as the broker wants it."""
        return ours.removesuffix(REST) + self.rest if ours.endswith("." + REST) else ours


EMBEDDED = Dialect(REST, "boincvm", names_sender=True)
RABBITMQ = Dialect("#", "/")
ACTIVEMQ = Dialect(">", "localhost")
