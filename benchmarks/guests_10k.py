"""10,000 simulated guests with heartbeats on one controller: the embedded broker and the registry.

`guests_10k`: the 99th percentile of the time from a message to one guest to its answer, against a
second; `guests_10k_memory`: of the controller's process, against 300 MiB. It fails unless exactly
these guests count as present after more than the time in which a silent one would not. `python -m
benchmarks.guests_10k [--broker NAME] [--plot FILE] [COUNT ...]` prints how both grow with the
number of guests; RabbitMQ and ActiveMQ are a process of their own, whose memory is printed too, and
there all guests have one login.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from benchmarks.activemq import activemq
from benchmarks.bus_fanout import peer, resident
from benchmarks.growth_chart import chart
from benchmarks.rabbitmq import LOGIN, PASSCODE, rabbitmq
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.bus.access import Account, Accounts, digest_of_passcode
from boincvm.bus.broker import Broker
from boincvm.bus.client import Address, StompBus
from boincvm.bus.dialects import DIALECTS
from boincvm.bus.stomp import Parser, encode
from boincvm.bus.transport import Message
from boincvm.controller.guests.hub import Hub
from boincvm.controller.guests.registry import SILENT_AFTER, Presence
from boincvm.controller.protocol.envelope import GUEST
from boincvm.controller.protocol.guest import BEAT

COUNT = 10_000
SIZES = (10, 100, 1000, 10_000)
WORDS = 500
"""Messages, sent one by one over more time than a guest may be silent."""
LIMIT = 180.0
_MIB = 1 << 20
_PASSCODE_DIGEST = digest_of_passcode(PASSCODE)
HEAP = 3072
"""MiB for ActiveMQ: 10,000 connections need more than one GiB."""


class Measured(NamedTuple):
    """A broker's figures."""

    p99: float
    """Seconds."""
    memory: int
    """Bytes of the controller's process."""
    broker: int = 0
    """Bytes of the broker; 0 if it is in the controller's process."""


# The controller's process.


async def embedded_broker(count: int) -> int:
    """Start an embedded broker and return its port."""
    accounts = Accounts(
        Account(str(n), _PASSCODE_DIGEST, ("/topic/host.{login}",), ("/topic/guest.{login}",))
        for n in range(count)
    )
    every = ("/topic/**",)
    accounts.add(Account(LOGIN, _PASSCODE_DIGEST, every, every))
    _, port = await Broker(accounts).listen_tcp("127.0.0.1", 0)
    return port


async def serve(count: int, kind: str, port: int) -> dict[str, float]:
    """Wait for `count` guests, then measure. `port`: of a broker that runs already."""
    if kind == "embedded":
        port = await embedded_broker(count)
    bus = await StompBus.open(Address(port=port), LOGIN, PASSCODE, dialect=DIALECTS[kind])
    all_there = asyncio.Event()
    hub = Hub(bus, lambda *_: all_there.set() if len(hub.registry) == count else None)
    await hub.open()
    registry = hub.registry
    answered: asyncio.Queue[str] = asyncio.Queue()

    def take(message: Message) -> None:
        if message.body == b"PONG":
            answered.put_nowait(message.destination.rpartition(".")[2])

    await bus.subscribe("/topic/host.**", take)
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
    """A guest that announces itself, sends heartbeats, and answers PING."""

    def __init__(self, number: int, kind: str) -> None:
        self._number = number
        self._login = str(number) if kind == "embedded" else LOGIN
        self._host = DIALECTS[kind].host
        self._parser = Parser()
        self._transport: asyncio.WriteTransport | None = None

    def _send(self, body: bytes) -> None:
        if self._transport is not None:
            headers = {"destination": f"/topic/host.{self._number}"}
            self._transport.write(encode("SEND", headers, body))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.WriteTransport):
            raise TypeError(transport)
        self._transport = transport
        login = {"login": self._login, "passcode": PASSCODE}
        transport.write(encode("CONNECT", {"accept-version": "1.2", "host": self._host, **login}))

    def data_received(self, data: bytes) -> None:
        for frame in self._parser.feed(data):
            if frame.command == "CONNECTED" and self._transport is not None:
                location = {"id": "1", "destination": f"{GUEST}{self._number}"}
                self._transport.write(encode("SUBSCRIBE", location))
                table = {"name": f"guest {self._number}", "labels": {"site": "simulated"}}
                self._send(b"HELLO " + json.dumps(table).encode())
                loop = asyncio.get_running_loop()
                loop.call_later(BEAT * random.random(), self._beat)
            elif frame.command == "MESSAGE" and frame.body == b"PING":
                self._send(b"PONG")

    def _beat(self) -> None:
        self._send(b"STILL_ALIVE")
        asyncio.get_running_loop().call_later(BEAT, self._beat)


async def beat(port: int, count: int, kind: str) -> None:
    """Run the guests without end."""
    loop = asyncio.get_running_loop()
    for number in range(count):
        guest = Beacon(number, kind)
        await loop.create_connection(lambda guest=guest: guest, "127.0.0.1", port)  # type: ignore[misc]
    print("ready", flush=True)
    await asyncio.Event().wait()


# The benchmark.


@contextmanager
def _broker(kind: str) -> Iterator[tuple[int, int]]:
    """Run a broker in its own process, except an embedded one; yield port and process id."""
    with tempfile.TemporaryDirectory(prefix="boincvm-bench-") as directory:
        if kind == "activemq":
            with activemq(Path(directory), heap=HEAP) as found:
                yield found
        elif kind == "rabbitmq":
            with rabbitmq(Path(directory)) as found:
                yield found
        else:
            yield 0, 0


def measure(count: int, kind: str = "embedded") -> Measured:
    """Measure with `count` guests."""
    module = [sys.executable, "-m", "benchmarks.guests_10k"]
    with _broker(kind) as (broker_port, broker_pid):
        serve = [*module, "serve", str(count), kind, str(broker_port)]
        controller = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        with controller:
            try:
                if controller.stdout is None:
                    raise RuntimeError("it has no output")
                port = controller.stdout.readline().strip()
                with peer("beat", port, str(count), kind, module="benchmarks.guests_10k"):
                    line = controller.stdout.readline()
                    if not line:
                        raise RuntimeError("the controller has ended")
                    broker = resident(broker_pid) if broker_pid else 0
                    return Measured(**json.loads(line), broker=broker)
            finally:
                controller.kill()


def _run(laboratory: Laboratory) -> list[Result]:
    laboratory.log(f"{COUNT} guests, {SILENT_AFTER + BEAT:g} s")
    found = measure(COUNT)
    limit = "a stated limit"
    return [
        Result("guests_10k", found.p99 * 1e3, "ms", 1000.0, limit, 1.0),
        Result("guests_10k_memory", found.memory / _MIB, "MiB", 300.0, limit, 1.0),
    ]


BENCHMARK = Benchmark(("guests_10k", "guests_10k_memory"), _run)


def _report(kinds: Sequence[str], sizes: Sequence[int], plot: Path | None) -> None:
    """Print a table and draw a chart."""
    print("| guests | broker | p99, ms | controller, MiB | broker, MiB |\n|---|---|---|---|---|")
    found: dict[str, list[Measured]] = {kind: [] for kind in kinds}
    for count in sizes:
        for kind in kinds:
            one = measure(count, kind)
            found[kind].append(one)
            broker = f"{one.broker / _MIB:.0f}" if one.broker else "(in it)"
            values = (f"{one.p99 * 1e3:.1f}", f"{one.memory / _MIB:.0f}", broker)
            print("|", " | ".join((str(count), kind, *values)), "|", flush=True)
    if plot is not None:
        memory = {k: [(one.memory + one.broker) / _MIB for one in found[k]] for k in kinds}
        times = {k: [one.p99 * 1e3 for one in found[k]] for k in kinds}
        title = "memory of controller and broker, MiB"
        plot.write_text(chart(sizes, {"a word and its answer, p99, ms": times, title: memory}))


def main(words: Sequence[str]) -> None:
    """Do what this process is started for: serve, simulate guests, or measure."""
    if words[:1] == ["serve"]:
        count, kind, port = int(words[1]), words[2], int(words[3])
        print(json.dumps(asyncio.run(serve(count, kind, port))), flush=True)
    elif words[:1] == ["beat"]:
        asyncio.run(beat(int(words[1]), int(words[2]), words[3]))
    else:
        parser = argparse.ArgumentParser(prog="python -m benchmarks.guests_10k")
        parser.add_argument("--broker", action="append", choices=list(DIALECTS), metavar="NAME")
        parser.add_argument("--plot", type=Path, metavar="FILE", help="a chart, as SVG")
        parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="COUNT")
        options = parser.parse_args(words)
        _report(options.broker or ["embedded"], options.sizes, options.plot)


if __name__ == "__main__":
    main(sys.argv[1:])
