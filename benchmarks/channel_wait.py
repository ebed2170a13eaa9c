"""channel_tick, channel_any_time, channel_cpu, client_cpu: how soon the app hears the client.

An app in a process of its own watches its channels; FakeClient, with a heartbeat a second, tells it
alternately to suspend and to resume, each time at least half a second after the former message was
received. Latency: from setting the flag until the event reaches the app, in ms. channel_tick:
messages sent at the client's tick, as a client sends nearly all; channel_any_time: at any moment,
as it sends abort and quit. Nothing is promised for the latter, because the cost of a wake-up
decides how often polling is affordable. channel_cpu: user and system time of the whole app process
in % of a core (/proc/PID/task/*/schedstat) while only heartbeats come; client_cpu: the same while
the app also reports its status at each heartbeat, through `Client`.

`python -m benchmarks.channel_wait` shows the same for other ways to watch (a timer of the event
loop, a thread with a fixed period): the table in docs/boinc-library.md.
"""

import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Protocol

from benchmarks.environment import PYTHON
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.boinc import Client, Heartbeat, Status
from boincvm.boinc.channel_poller import ChannelPoller
from boincvm.boinc.channels import CONTROL, HEARTBEAT, Channel
from boincvm.boinc.messages import Control
from boincvm.boinc.segment import FILE_NAME, MappedFile
from boincvm.boinc.testing import FakeClient

LATENCY_TARGET = 8.0
"""ms."""
CPU_TARGET, CLIENT_TARGET = 0.1, 0.2
"""% of a core."""
WINDOW, QUICK_WINDOW = 30.0, 10.0
"""Seconds."""
WARM_UP = 6.0
"""Seconds until the client's schedule is learned."""
LIMIT = 10.0


# The app's side: a process of its own.


class Watcher(Protocol):
    def close(self) -> None: ...


class Timer:
    """Watches with a timer of the event loop."""

    def __init__(self, poll: Callable[[], bool], handle: Callable[[], None], period: float) -> None:
        self._poll = poll
        self._handle = handle
        self._period = period
        self._again()

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period, self._again)
        if self._poll():
            self._handle()

    def close(self) -> None:
        self._timer.cancel()


class Thread:
    """Watches with a thread that looks once in a fixed period."""

    def __init__(self, poll: Callable[[], bool], handle: Callable[[], None], period: float) -> None:
        self._stop = threading.Lock()
        self._stop.acquire()
        loop = asyncio.get_running_loop()

        def run() -> None:
            while not self._stop.acquire(timeout=period):
                if poll():
                    loop.call_soon_threadsafe(handle)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def close(self) -> None:
        self._stop.release()
        self._thread.join()


async def _app(way: str, period: float) -> None:
    """Print the time of each message received; end with the standard input."""
    if way == "client":
        await _client_app()
        return
    segment = MappedFile(Path(FILE_NAME))
    memory = segment.memory
    control, heartbeat = Channel(memory, CONTROL), Channel(memory, HEARTBEAT)

    def poll() -> bool:
        return control.is_full or heartbeat.is_full

    def handle() -> None:
        heartbeat.receive()
        if control.receive() is not None:
            print(json.dumps(time.monotonic()), flush=True)

    watcher: Watcher
    if way == "schedule":
        watcher = ChannelPoller(memory, handle)
    else:
        watcher = (Timer if way == "timer" else Thread)(poll, handle, period)
    await _end_of_input()
    watcher.close()
    segment.close()


async def _client_app() -> None:
    client = await Client.open()

    def report(_: Heartbeat) -> None:
        client.report(Status(1.0, 0.5, 0.25))

    client.on_heartbeat = report

    async def notify() -> None:
        while True:
            await client.next_event()
            print(json.dumps(time.monotonic()), flush=True)

    telling = asyncio.create_task(notify())
    await _end_of_input()
    telling.cancel()
    client.close()


async def _end_of_input() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    await ended.wait()


# The client's side.


def _cpu_seconds(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


async def measure(
    directory: Path, way: str, period: float, times: int, window: float
) -> tuple[list[float], list[float], float]:
    """Measure latencies in s of messages at a tick and at any time, and CPU in % of a core."""
    async with FakeClient(directory) as client:
        process = await asyncio.create_subprocess_exec(
            *(PYTHON, "-m", "benchmarks.channel_wait", way, str(period)),
            cwd=client.slot.path,
            env={"PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            await asyncio.sleep(WARM_UP)
            cpu, begin = _cpu_seconds(process.pid), time.monotonic()
            await asyncio.sleep(window)
            used = _cpu_seconds(process.pid) - cpu
            percent = 100 * used / (time.monotonic() - begin)
            at_tick = [await _latency(client, process, at_tick=True) for _ in range(times)]
            at_any = [await _latency(client, process, at_tick=False) for _ in range(times)]
        finally:
            process.kill()
            await process.communicate()
    return at_tick, at_any, percent


async def _latency(
    client: FakeClient, process: asyncio.subprocess.Process, *, at_tick: bool
) -> float:
    await asyncio.sleep(random.uniform(0.5, 1.5))
    client.send(Control.SUSPEND if len(client.sent) % 2 else Control.RESUME, at_tick=at_tick)
    if process.stdout is None:
        raise RuntimeError("a process without its output")
    async with asyncio.timeout(LIMIT):
        received = float(await process.stdout.readline())
    return received - client.sent[-1].at


def _channel_wait(laboratory: Laboratory) -> list[Result]:
    window = QUICK_WINDOW if laboratory.quick else WINDOW
    times = laboratory.times(40, 10)
    laboratory.log(f"twice {times} words, twice {window:g} s of nothing")
    one, two = laboratory.directory / "channels", laboratory.directory / "client"
    at_tick, at_any, cpu = asyncio.run(measure(one, "schedule", 0.0, times, window))
    _, _, client_cpu = asyncio.run(measure(two, "client", 0.0, 0, window))
    return [
        Result("channel_tick", 1000 * median(at_tick), "ms", LATENCY_TARGET, "limit", 1.0),
        Result("channel_any_time", 1000 * median(at_any), "ms"),
        Result("channel_cpu", cpu, "%", CPU_TARGET, "limit", 1.0),
        Result("client_cpu", client_cpu, "%", CLIENT_TARGET, "limit", 1.0),
    ]


BENCHMARK = Benchmark(
    ("channel_tick", "channel_any_time", "channel_cpu", "client_cpu"), _channel_wait
)

_WAYS = (
    *(("timer", period) for period in (0.1, 0.05, 0.016, 0.01)),
    *(("thread", period) for period in (0.1, 0.05, 0.016, 0.01)),
    ("schedule", 0.0),
    ("client", 0.0),
)


def _compare(times: int, window: float) -> None:
    print("way     period   CPU %   tick: median, 90 %   any time: median, 90 %   (ms)")
    for way, period in _WAYS:
        with tempfile.TemporaryDirectory(prefix="boincvm-bench-") as directory:
            at_tick, at_any, cpu = asyncio.run(
                measure(Path(directory) / "fake", way, period, times, window)
            )
        figures = [f"{_part(x, 0.5):8.1f} {_part(x, 0.9):8.1f}" for x in (at_tick, at_any)]
        print(f"{way:7} {period:6g} {cpu:8.4f}   {'     '.join(figures)}", flush=True)


def _part(values: list[float], part: float) -> float:
    return 1000 * sorted(values)[int(part * (len(values) - 1))]


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(_app(sys.argv[1], float(sys.argv[2])))
    else:
        _compare(times=20, window=15.0)
