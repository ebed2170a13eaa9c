"""exec_overhead: what a command costs beyond the guest's own time, in ms.

Ours is one command to one machine of a controller: `POST /api/exec?follow=yes` by a connection
that is kept, as HTTP clients do it, until the answer says how it ended. So it has the HTTP
server, the registry, the store, the bus, the keeper and the way back. The guest's own time is
the same request's in a machine like it, given to its link directly. They take turns; the result
is the difference of the medians.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.booted import booted
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.controller.client import Client
from boincvm.controller.client_address import ControllerAddress
from boincvm.controller.command import Request
from boincvm.controller.guest_programs import programs_of
from boincvm.paths import data_directory
from boincvm.wrapper.session import Session

PROGRAM = "/bin/true"
BODY = json.dumps({"vms": "m", "argv": [PROGRAM]})
HEADERS = {"Content-Type": "application/json"}
WARM_UP = 10
LIMIT = 60.0
TARGET_MS = 5.0


class Nobody:
    """Does not listen."""

    def output(self, _stream: str, _data: bytes) -> None: ...

    def input_taken(self, _count: int) -> None: ...

    def voice(self, _fraction: float | None, _count: int) -> None: ...


@contextmanager
def _controller(scratch: Path) -> Iterator[Client]:
    """With one machine "m", which runs."""
    with tempfile.TemporaryDirectory(prefix="exec-", dir=scratch) as directory:
        data = Path(directory) / "data"
        data.mkdir()
        (data / "images").symlink_to(data_directory() / "images")
        process = subprocess.Popen(
            [sys.executable, "-m", "boincvm.cli.main", "controller"],
            env={**os.environ, "BOINCVM_HOME": directory},
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            process.stderr.readline()  # it says that it runs
            client = Client(ControllerAddress(data / "controller" / "http.sock"))
            client.call("create", name="m", memory="256M")
            client.call("start", vms="m")
            yield client
            client.call("remove", vms="m", force=True)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=LIMIT)


def _asked_for(connection: HTTPConnection) -> float:
    begin = perf_counter()
    connection.request("POST", "/api/exec?follow=yes", BODY, HEADERS)
    response = connection.getresponse()
    while "command" not in json.loads(response.readline()):
        pass
    seconds = perf_counter() - begin
    response.read()
    return seconds


async def _direct(session: Session) -> float:
    begin = perf_counter()
    await programs_of(session.link)(Request((PROGRAM,)), Nobody()).wait()
    return perf_counter() - begin


async def _both(
    laboratory: Laboratory, connection: HTTPConnection, times: int
) -> tuple[float, float]:
    """Medians, in seconds: asked for, direct."""
    measured: list[tuple[float, float]] = []
    machine = booted(laboratory.base, laboratory.accelerator, laboratory.directory)
    async with machine as session:

        async def take_turns() -> None:
            async with asyncio.timeout(LIMIT + times):
                for _ in range(WARM_UP + times):
                    asked = _asked_for(connection)
                    measured.append((asked, await _direct(session)))

        await session.guard(take_turns())
    asked, direct = zip(*measured[WARM_UP:], strict=True)
    return median(asked), median(direct)


def _exec_overhead(laboratory: Laboratory) -> list[Result]:
    times = laboratory.times(200, 60)
    laboratory.say(f"{times} commands")
    with (
        _controller(laboratory.directory) as client,
        closing(client.address.connection(LIMIT)) as connection,
    ):
        asked, direct = asyncio.run(_both(laboratory, connection, times))
    return [
        Result("exec_overhead", 1000 * (asked - direct), "ms", TARGET_MS, "limit", 1.0),
        Result("exec_in_guest", 1000 * direct, "ms"),
    ]


BENCHMARK = Benchmark(("exec_overhead", "exec_in_guest"), _exec_overhead)
