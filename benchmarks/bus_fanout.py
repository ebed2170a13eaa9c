"""A command to 1,000 guests and all their answers: the embedded broker against RabbitMQ.

`fanout_1k`: seconds from the command to the last answer; `broker_memory`: the broker's resident
memory then. Broker, guests and controller are a process each.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

from benchmarks.bus_peers import ANSWERS, COMMAND
from benchmarks.rabbitmq import LOGIN, PASSCODE, rabbitmq
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.bus.client import Address, StompBus
from boincvm.bus.dialects import EMBEDDED, RABBITMQ, Dialect
from boincvm.bus.transport import Message

GUESTS = 1000
LIMIT = 120.0
_MIB = 1 << 20


class Measured(NamedTuple):
    """A broker's figures."""

    seconds: float
    """Median."""
    memory: int
    """Bytes."""


@contextmanager
def peer(*arguments: str, module: str = "benchmarks.bus_peers") -> Iterator[tuple[str, int]]:
    """Run a process of that module within the block; yield its first line of output and its id."""
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            if process.stdout is None:
                raise RuntimeError("it has no output")
            word = process.stdout.readline().strip()
            if not word:
                raise RuntimeError(f"{' '.join(arguments)} ended before it was ready")
            yield word, process.pid
        finally:
            process.kill()


async def command_all(port: int, dialect: Dialect, times: int) -> float:
    """Return the median of the seconds from a command to the last guest's answer."""
    bus = await StompBus.open(Address(port=port), LOGIN, PASSCODE, dialect=dialect)
    answered, count = asyncio.Event(), 0

    def take(_: Message) -> None:
        nonlocal count
        count += 1
        if count == GUESTS:
            answered.set()

    await bus.subscribe(ANSWERS, take)
    took: list[float] = []
    for _ in range(times + 1):
        answered.clear()
        count = 0
        begin = perf_counter()
        bus.post(COMMAND, {}, bytes(200))
        async with asyncio.timeout(LIMIT):
            await answered.wait()
        took.append(perf_counter() - begin)
    await bus.close()
    return median(took[1:])  # the first one warms up


def resident(pid: int) -> int:
    """Return the process's resident memory in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("it has no memory")


def measure(port: int, pid: int, dialect: Dialect, times: int) -> Measured:
    """Measure a broker with GUESTS connected."""
    with peer("guests", str(port), dialect.host, str(GUESTS)):
        seconds = asyncio.run(command_all(port, dialect, times))
        return Measured(seconds, resident(pid))


def _run(laboratory: Laboratory) -> list[Result]:
    times = laboratory.times(20, 5)
    laboratory.log("the embedded broker")
    with peer("broker") as (port, pid):
        ours = measure(int(port), pid, EMBEDDED, times)
    laboratory.log("RabbitMQ")
    with (
        tempfile.TemporaryDirectory(dir=laboratory.directory) as directory,
        rabbitmq(Path(directory)) as (rabbit_port, rabbit_pid),
    ):
        theirs = measure(rabbit_port, rabbit_pid, RABBITMQ, times)
    against = "RabbitMQ"
    return [
        Result("fanout_1k", ours.seconds * 1e3, "ms", theirs.seconds * 1e3, against, 0.5),
        Result("broker_memory", ours.memory / _MIB, "MiB", theirs.memory / _MIB, against, 1 / 3),
    ]


BENCHMARK = Benchmark(("fanout_1k", "broker_memory"), _run)
