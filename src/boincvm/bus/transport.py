"""What the controller needs of a message bus, whichever broker is behind it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """What came on a subscription.

    destination: where it was sent, such as `/topic/host.17`. headers: the sender's own, without
    those of the protocol. sender: the login that the broker vouches for, or "" where the broker
    does not say.
    """

    destination: str
    headers: Mapping[str, str]
    body: bytes
    sender: str


Receiver = Callable[[Message], None]
"""Is called in the event loop and must not block; what it raises ends the bus."""


class Bus(Protocol):
    """A connection to a broker that comes back by itself when it is lost.

    In patterns of destinations `*` stands for one word between dots and `**`, at the end, for
    any number of words; the client translates them for its broker. What was sent with `post`
    around a reconnection may be lost, and what was sent with `send` may come twice: who needs
    more puts an id into the message.
    """

    def post(self, destination: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Sends and does not wait; dropped, and counted, where there is no connection, where the
        broker reads nothing, or where that is no destination (topics.py)."""

    async def send(self, destination: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Sends, and returns when the broker has acknowledged it, across reconnections if need
        be. Raises BusError when the bus is closed, and where that is no destination."""

    async def subscribe(self, pattern: str, receiver: Receiver) -> Callable[[], Awaitable[None]]:
        """Calls `receiver` with each message from now on, across reconnections; what it returns
        ends the subscription."""

    async def close(self) -> None:
        """Says goodbye and ends; nothing is received afterwards."""
