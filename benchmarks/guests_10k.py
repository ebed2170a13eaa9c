"""10,000 simulated guests with beacons on one controller: the embedded broker and the registry.

`guests_10k`: the 99th percentile of the time from a word to one guest to its answer, against a
second; `guests_10k_memory`: of the controller's process, against 300 MiB. It fails unless every
guest, and nobody else, counts as present after more than the time in which a silent one would not.
`python -m benchmarks.guests_10k [COUNT ...]` prints how both grow with the number of guests.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

from benchmarks.bus_fanout import peer, resident
from benchmarks.rabbitmq import LOGIN, PASSCODE
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.bus.access import Account, Accounts, digest_of_passcode
from boincvm.bus.broker import Broker
from boincvm.bus.client import Address, StompBus
from boincvm.bus.stomp import Parser, encode
from boincvm.bus.transport import Message
from boincvm.controller.presence import GUEST, PresenceWords
from boincvm.controller.registry import BEAT, SILENT_AFTER, Presence, Registry

COUNT = 10_000
SIZES = (10, 100, 1000, 10_000)
WORDS = 500
"""Sent one by one, spread over more time than a guest may be silent."""
LIMIT = 180.0
_MIB = 1 << 20
_PASSCODE_DIGEST = digest_of_passcode(PASSCODE)


class Measured(NamedTuple):
    """p99: seconds; memory: bytes."""

    p99: float
    memory: int


# The controller's process.


async def serve(count: int) -> dict[str, float]:
    """What was measured, once `count` guests have come."""
    accounts = Accounts(
        Account(str(n), _PASSCODE_DIGEST, ("/topic/host.{login}",), ("/topic/guest.{login}",))
        for n in range(count)
    )
    every = ("/topic/**",)
    accounts.add(Account(LOGIN, _PASSCODE_DIGEST, every, every))
    broker = Broker(accounts)
    _, port = await broker.listen_tcp("127.0.0.1", 0)
    bus = await StompBus.open(Address(port=port), LOGIN, PASSCODE)
    all_there = asyncio.Event()
    registry = Registry(lambda *_: all_there.set() if len(registry) == count else None)
    await PresenceWords(bus, registry).open()
    answered: asyncio.Queue[str] = asyncio.Queue()

    def take(message: Message) -> None:
        if message.body == b"PONG":
            answered.put_nowait(message.sender)

    await bus.subscribe("/topic/host.**", take)
    registry.watch()
    print(port, flush=True)
    async with asyncio.timeout(LIMIT):
        await all_there.wait()
    took: list[float] = []
    loop = asyncio.get_running_loop()
    begin, chosen = loop.time(), random.Random(1)
    for number in range(WORDS):
        await asyncio.sleep(begin + number * (SILENT_AFTER + BEAT) / WORDS - loop.time())
        guest, at = str(chosen.randrange(count)), perf_counter()
        bus.post(GUEST + guest, {}, b"PING")
        async with asyncio.timeout(LIMIT):
            if await answered.get() != guest:
                raise RuntimeError("another guest has answered")
        took.append(perf_counter() - at)
    present = sum(registry.presence(str(n)) is Presence.PRESENT for n in range(count))
    if (present, len(registry)) != (count, count):
        raise RuntimeError(f"{present} of {len(registry)} guests are present, {count} should be")
    return {"p99": sorted(took)[WORDS * 99 // 100], "memory": resident(os.getpid())}


# The guests' process.


class Beacon(asyncio.Protocol):
    """A guest that announces itself, beats, and answers PING."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._parser = Parser()
        self._transport: asyncio.WriteTransport | None = None

    def _say(self, body: bytes) -> None:
        if self._transport is not None:
            headers = {"destination": f"/topic/host.{self._number}"}
            self._transport.write(encode("SEND", headers, body))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.WriteTransport):
            raise TypeError(transport)
        self._transport = transport
        login = {"login": str(self._number), "passcode": PASSCODE}
        transport.write(encode("CONNECT", {"accept-version": "1.2", "host": "x", **login}))

    def data_received(self, data: bytes) -> None:
        for frame in self._parser.feed(data):
            if frame.command == "CONNECTED" and self._transport is not None:
                place = {"id": "1", "destination": f"{GUEST}{self._number}"}
                self._transport.write(encode("SUBSCRIBE", place))
                table = {"name": f"guest {self._number}", "labels": {"site": "simulated"}}
                self._say(b"HELLO " + json.dumps(table).encode())
                loop = asyncio.get_running_loop()
                loop.call_later(BEAT * random.random(), self._beat)
            elif frame.command == "MESSAGE" and frame.body == b"PING":
                self._say(b"PONG")

    def _beat(self) -> None:
        self._say(b"STILL_ALIVE")
        asyncio.get_running_loop().call_later(BEAT, self._beat)


async def beat(port: int, count: int) -> None:
    """For ever."""
    loop = asyncio.get_running_loop()
    for number in range(count):
        await loop.create_connection(lambda number=number: Beacon(number), "127.0.0.1", port)  # type: ignore[misc]
    print("ready", flush=True)
    await asyncio.Event().wait()


# The benchmark.


def measure(count: int) -> Measured:
    """With so many guests."""
    module = [sys.executable, "-m", "benchmarks.guests_10k"]
    controller = subprocess.Popen([*module, "serve", str(count)], stdout=subprocess.PIPE, text=True)
    with controller:
        try:
            if controller.stdout is None:
                raise RuntimeError("it has no output")
            port = controller.stdout.readline().strip()
            with peer("beat", port, str(count), module="benchmarks.guests_10k"):
                line = controller.stdout.readline()
                if not line:
                    raise RuntimeError("the controller has ended")
                return Measured(**json.loads(line))
        finally:
            controller.kill()


def _run(laboratory: Laboratory) -> list[Result]:
    laboratory.say(f"{COUNT} guests, {SILENT_AFTER + BEAT:g} s")
    found = measure(COUNT)
    limit = "a stated limit"
    return [
        Result("guests_10k", found.p99 * 1e3, "ms", 1000.0, limit, 1.0),
        Result("guests_10k_memory", found.memory / _MIB, "MiB", 300.0, limit, 1.0),
    ]


BENCHMARK = Benchmark(("guests_10k", "guests_10k_memory"), _run)


def main(words: Sequence[str]) -> None:
    """What a process of these is to do."""
    if words[:1] == ["serve"]:
        print(json.dumps(asyncio.run(serve(int(words[1])))), flush=True)
    elif words[:1] == ["beat"]:
        asyncio.run(beat(int(words[1]), int(words[2])))
    else:
        print("| guests | p99, ms | memory, MiB |\n|---|---|---|")
        for count in map(int, words or map(str, SIZES)):
            found = measure(count)
            print(f"| {count} | {found.p99 * 1e3:.1f} | {found.memory / _MIB:.0f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
