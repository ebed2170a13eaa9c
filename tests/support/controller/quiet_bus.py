"""A bus without other participants."""

from collections.abc import Awaitable, Callable, Mapping

from boincvm.bus.transport import Message, Receiver


class QuietBus:
    """A bus that discards what is sent; `deliver` delivers a message."""

    receiver: Receiver = staticmethod(lambda _message: None)

    def post(self, destination: str, headers: Mapping[str, str], body: bytes = b"") -> None: ...

    async def send(
        self, destination: str, headers: Mapping[str, str], body: bytes = b""
    ) -> None: ...

    async def subscribe(self, pattern: str, receiver: Receiver) -> Callable[[], Awaitable[None]]:
        self.receiver = receiver

        async def end() -> None: ...

        return end

    def deliver(self, guest: str, body: bytes) -> None:
        self.receiver(Message(f"/topic/host.{guest}", {}, body, guest))
