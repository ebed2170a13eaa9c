"""An embedded broker for a test, and raw connections to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Self

from boincvm.bus.access import Account, Accounts, digest_of_passcode
from boincvm.bus.broker import Broker, BrokerLimits
from boincvm.bus.client import Address, StompBus
from boincvm.bus.stomp import Frame, Parser, encode
from support.held_port import held_port
from support.raw_connection import LIMIT, RawConnection

PASSCODE = "right"
DIGEST = digest_of_passcode(PASSCODE)
ALL = ("/topic/**", "/queue/**")


def accounts() -> Accounts:
    """Return accounts: `host` may do everything, guests may use their own topics."""
    guests = [
        Account(
            f"g{number}",
            DIGEST,
            may_send=("/topic/host.{login}",),
            may_subscribe=("/topic/guest.{login}", "/topic/all.*"),
        )
        for number in range(10)
    ]
    return Accounts([Account("host", DIGEST, ALL, ALL), *guests])


@asynccontextmanager
async def broker(
    limits: BrokerLimits | None = None, port: int = 0, known: Accounts | None = None
) -> AsyncIterator[tuple[Broker, Address]]:
    """Run a broker, within the block or until it is closed; another one can have its port then."""
    running = Broker(known or accounts(), limits)
    with nullcontext(port) if port else held_port() as ours:
        host, ours = await running.listen_tcp("127.0.0.1", ours)
        try:
            yield running, Address(host=host, port=ours)
        finally:
            await running.close()


@asynccontextmanager
async def bus(
    address: Address, login: str = "host", heart_beat: int = 0
) -> AsyncIterator[StompBus]:
    opened = await StompBus.open(address, login, PASSCODE, heart_beat=heart_beat)
    try:
        yield opened
    finally:
        await opened.close()


class Peer(RawConnection):
    """A raw connection, which can send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._parser = Parser()
        self._frames: list[Frame] = []

    @classmethod
    async def open(cls, address: Address) -> Self:
        return cls(*await asyncio.open_connection(address.host, address.port))

    @classmethod
    async def logged_in(cls, address: Address, login: str = "host", **headers: str) -> Self:
        peer = await cls.open(address)
        usual = {"accept-version": "1.2", "host": "x", "login": login, "passcode": PASSCODE}
        peer.send("CONNECT", **{**usual, **{k.replace("_", "-"): v for k, v in headers.items()}})
        assert (await peer.receive()).command == "CONNECTED"
        return peer

    def send(self, command: str, body: bytes = b"", **headers: str) -> None:
        self.writer.write(encode(command, headers, body))

    async def receive(self) -> Frame:
        """Return the next frame. Raises EOFError if the broker has closed."""
        async with asyncio.timeout(LIMIT):
            while not self._frames:
                data = await self.reader.read(1 << 16)
                if not data:
                    raise EOFError
                self._frames += self._parser.feed(data)
        return self._frames.pop(0)
