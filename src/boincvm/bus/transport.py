"""The interface that the controller needs of a message bus, whatever the broker."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """A message received on a subscription."""

    destination: str
    """Where it was sent, such as `/topic/host.17`."""
    headers: Mapping[str, str]
    """The sender's own, without those of the protocol."""
    body: bytes
    sender: str
    """The login that the broker vouches for, or "" if the broker does not name it."""


Receiver = Callable[[Message], None]
"""Called in the event loop and must not block; an exception ends the bus."""


class Bus(Protocol):
    """A connection to a broker that is restored when it is lost.

    In patterns of destinations `*` stands for one word between dots and a final `**` for any number
    of words; the client translates them for its broker. Around a reconnection messages of `post`
    may be lost, and messages of `send` may arrive twice: callers that need more put an id into the
    message.
    """

    def post(self, destination: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send without waiting.

        The message is dropped, and counted, if there is no connection, the broker does not read, or
        the destination is invalid (topics.py).
        """

    async def send(self, destination: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send, and return when the broker has acknowledged it, even across reconnections.

        Raises BusError if the bus is closed or the destination is invalid.
        """

    async def subscribe(self, pattern: str, receiver: Receiver) -> Callable[[], Awaitable[None]]:
        """Call `receiver` with each message from now on, even across reconnections.

        The function that is returned ends the subscription.
        """

    async def close(self) -> None:
        """Say goodbye and disconnect; nothing is received afterwards."""
