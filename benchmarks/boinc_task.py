"""A job of one task under `boincvm-wrapper` and FakeClient, and clocks for its processes.

The figures of BOINC's own wrapper were measured on the test machines with the real client 7.20.5,
less that client's tick where the wrapper is not responsible for it.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.results import Laboratory
from boincvm.boinc.testing import FakeClient

WRAPPER = Path(BOINCVM).with_name("boincvm-wrapper")
LIMIT = 60.0
"""Seconds that any step may take before the benchmark gives up."""
STEP = 0.0005
"""Seconds between two samples of a process's state."""

STOCK = "BOINC's wrapper"
STOCK_SUSPEND_MS = 630.0
"""From the message to the worker's stop: 1130 ms from the manager's request, less the client's
500."""
STOCK_ABORT_MS = 2800.0
"""From the message to the end of the last process."""
STOCK_FINISH_MS = 2280.0
"""From the worker's end to our own: the client notices after 2740 ms, of which 460 are its own."""
STOCK_IDLE_PERCENT = 0.13


@dataclass(frozen=True, slots=True)
class Job:
    """A job.xml with one `task`, whose `application` is the shell script `worker`.

    `$WORDS` and `$GO` in the script are FIFOs that the benchmark holds open: it reads the one
    (`RunningJob.word`) and writes to the other (`RunningJob.go`).
    """

    worker: str
    machine: str = ""

    def lay_into(self, slot: Path) -> None:
        (slot / "job.xml").write_text(
            f"<job_desc><task><application>worker</application>{self.machine}</task></job_desc>"
        )
        script = slot / "worker"
        script.write_text(f"#!/bin/sh\n{self.worker}")
        script.chmod(0o755)


class RunningJob:
    """A client with `job` in its slot; `start` starts our wrapper there."""

    def __init__(self, client: FakeClient, directory: Path) -> None:
        self.client = client
        self._fifos = {"WORDS": directory / "words", "GO": directory / "go"}
        for path in self._fifos.values():
            os.mkfifo(path)
        flags = os.O_RDWR | os.O_NONBLOCK
        self._words, self._go = (os.open(path, flags) for path in self._fifos.values())

    async def start(self) -> None:
        fifos = {name: str(path) for name, path in self._fifos.items()}
        await self.client.start([WRAPPER], environment={**clean_environment(), **fifos})

    async def word(self) -> str:
        """Wait for what the worker writes to `$WORDS`, and return it."""
        await _readable(self._words)
        return os.read(self._words, 4096).decode().strip()

    def go(self) -> None:
        """Send a line to the worker."""
        os.write(self._go, b"go\n")

    def close(self) -> None:
        os.close(self._words)
        os.close(self._go)


@asynccontextmanager
async def job_under_client(laboratory: Laboratory, job: Job) -> AsyncIterator[RunningJob]:
    """Prepare a client with `job` in its slot; kill all processes afterwards."""
    with tempfile.TemporaryDirectory(prefix="boinc-", dir=laboratory.directory) as directory:
        async with FakeClient(Path(directory) / "boinc") as client:
            job.lay_into(client.slot.path)
            running = RunningJob(client, Path(directory))
            try:
                yield running
            finally:
                running.close()


def descendants(pid: int) -> list[int]:
    """List `pid` and all processes beneath it."""
    found = [pid]
    for process in found:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            found += map(int, _words(children))
    return found


async def has_state(pid: int, letters: str) -> float:
    """Wait until the process is in one of these states; return when, by the monotonic clock."""

    def state() -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    return await first_seen(lambda: state() in letters)


async def first_seen(condition: Callable[[], bool]) -> float:
    """Poll a condition that no event announces; return when it was met, by the monotonic clock."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(STEP)
    return monotonic()


def cpu_nanoseconds(pid: int) -> int:
    """Return the user and system time of all the process's threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(words[0]) for task in tasks if (words := _words(task)))


def _words(path: Path) -> list[str]:
    """Return the fields of a file in /proc; none if its thread has ended meanwhile."""
    try:
        return path.read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


class Watched:
    """A process, identified by a descriptor that stays valid after its end."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    async def end(self) -> float:
        """Wait for the process's end; return when that was, by the monotonic clock."""
        try:
            await _readable(self._descriptor)
            return monotonic()
        finally:
            os.close(self._descriptor)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        async with asyncio.timeout(LIMIT):
            await ready.wait()
    finally:
        loop.remove_reader(descriptor)
