"""Processes of the bus's benchmarks: an embedded broker, and many simulated guests.

`python -m benchmarks.bus_peers broker`, or `guests PORT HOST COUNT`. Each prints one line when it
is ready, and ends when its standard input does.
"""

import asyncio
import sys
from typing import cast

from benchmarks.rabbitmq import LOGIN, PASSCODE
from boincvm.bus.access import Account, Accounts, digest_of_passcode
from boincvm.bus.broker import Broker
from boincvm.bus.stomp import Parser, encode

COMMAND, ANSWERS = "/topic/all.run", "/topic/host.*"
_ALL = ("/topic/**", "/queue/**")


class Guest(asyncio.Protocol):
    """Answers each message; `ready` is done once it has subscribed."""

    def __init__(self, host: str, number: int) -> None:
        self._host = host
        self._number = number
        self._parser = Parser()
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def _send(self, command: str, headers: dict[str, str], body: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(encode(command, headers, body))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        login = {"login": LOGIN, "passcode": PASSCODE}
        self._send("CONNECT", {"accept-version": "1.2", "host": self._host, **login})

    def connection_lost(self, _: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the broker closed the connection"))

    def data_received(self, data: bytes) -> None:
        for frame in self._parser.feed(data):
            if frame.command == "CONNECTED":
                self._send("SUBSCRIBE", {"id": "1", "destination": COMMAND, "receipt": "r"})
            elif frame.command == "RECEIPT":
                self.ready.set_result(None)
            elif frame.command == "MESSAGE":
                self._send("SEND", {"destination": f"/topic/host.{self._number}"}, frame.body)


async def until_input_ends() -> None:
    """Wait until the parent process closes our standard input."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


async def run_broker() -> None:
    account = Account(LOGIN, digest_of_passcode(PASSCODE), _ALL, _ALL)
    broker = Broker(Accounts([account]))
    _, port = await broker.listen_tcp("127.0.0.1", 0)
    print(port, flush=True)
    await until_input_ends()
    await broker.close()


async def run_guests(port: int, host: str, count: int) -> None:
    loop = asyncio.get_running_loop()
    for number in range(count):
        guest = Guest(host, number)
        await loop.create_connection(lambda guest=guest: guest, "127.0.0.1", port)  # type: ignore[misc]
        await guest.ready
    print("ready", flush=True)
    await until_input_ends()


if __name__ == "__main__":
    if sys.argv[1] == "broker":
        asyncio.run(run_broker())
    else:
        asyncio.run(run_guests(int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
