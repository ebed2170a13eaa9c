"""A guest that sends what a test wants, whether it may or not, and the host's end of its link."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from boincvm.bus.stomp import LINK_VERSION, Frame, Parser, encode
from boincvm.guestlink.link import GuestLink
from boincvm.hypervisor.channel import SocketChannel

_LIMIT = 10.0
"""Seconds within which the host must have sent a message that the test expects."""


CONNECT = encode(
    "CONNECT", {"accept-version": "1.2", "heart-beat": "100,0", "link-version": LINK_VERSION}
)
"""What a guest says first."""


class ScriptedGuest:
    """The guest's end of a link."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self.channel = channel
        self._parser = Parser()
        self._frames: list[Frame] = []

    async def send(self, data: bytes) -> None:
        """Send any bytes."""
        await asyncio.get_running_loop().sock_sendall(self.channel, data)

    async def send_message(
        self, message: str, call: int = 0, body: bytes = b"", /, **headers: str
    ) -> None:
        """Send a message; in the headers' names an underscore stands for a hyphen."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        head = {"destination": "/host", "message": message, "call": str(call), **named}
        await self.send(encode("SEND", head, body))

    async def next_frame(self) -> Frame:
        """Return what the host sends next."""
        async with asyncio.timeout(_LIMIT):
            while not self._frames:
                data = await asyncio.get_running_loop().sock_recv(self.channel, 1 << 16)
                assert data
                self._frames += self._parser.feed(data)
        return self._frames.pop(0)

    async def receive(self, message: str) -> Frame:
        """Return the host's next message, which must be `message`."""
        frame = await self.next_frame()
        assert frame.headers["message"] == message
        return frame


Pair = tuple[ScriptedGuest, GuestLink]
"""The two ends of a link."""


@asynccontextmanager
async def linked(
    state: dict[str, object] | None = None, *, attach_is_sent: bool = False
) -> AsyncIterator[Pair]:
    """Yield both ends of a link. `state`, `attach_is_sent`: see `GuestLink.open`."""
    local, remote = socket.socketpair()
    local.setblocking(False)
    with remote:
        link = await GuestLink.open(
            SocketChannel(local), attach_to=state, attach_is_sent=attach_is_sent
        )
        try:
            yield ScriptedGuest(remote), link
        finally:
            link.close()
            await asyncio.sleep(0)  # the transport closes in the loop's next round
