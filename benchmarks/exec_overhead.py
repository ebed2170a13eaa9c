"""exec_overhead: what a command costs beyond the guest's own time, in ms.

Ours is one command to one machine of a controller: `POST /api/exec?follow=yes` on a connection that
is kept open, as HTTP clients do, until the answer reports the command's end. So it covers the HTTP
server, the registry, the store, the bus, the shim and the way back. The guest's own time is the
answer's `wall_time`: from when the shim handed the program to the guest's link until it heard of
its end. The result is the median of the differences.
"""

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

from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.client.address import ControllerAddress
from boincvm.client.client import Client
from boincvm.paths import data_directory

PROGRAM = "/bin/true"
BODY = json.dumps({"vms": "m", "argv": [PROGRAM]})
HEADERS = {"Content-Type": "application/json"}
WARM_UP = 10
LIMIT = 60.0
TARGET_MS = 5.0


@contextmanager
def _controller(scratch: Path) -> Iterator[Client]:
    """Run a controller with one machine, "m", which is running."""
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
            process.stderr.readline()  # it reports that it is running
            client = Client(ControllerAddress(data / "controller" / "http.sock"))
            client.call("create", name="m", memory="256M")
            client.call("start", vms="m")
            yield client
            client.call("remove", vms="m", force=True)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=LIMIT)


def _asked_for(connection: HTTPConnection) -> tuple[float, float]:
    """Return the seconds until the answer, and how many of them the guest took."""
    begin = perf_counter()
    connection.request("POST", "/api/exec?follow=yes", BODY, HEADERS)
    response = connection.getresponse()
    while "command" not in (table := json.loads(response.readline())):
        pass
    seconds = perf_counter() - begin
    response.read()
    return seconds, table["command"]["answers"]["m"]["resources"]["wall_time"]


def _exec_overhead(laboratory: Laboratory) -> list[Result]:
    times = laboratory.times(400, 100)
    laboratory.log(f"{times} commands")
    with (
        _controller(laboratory.directory) as client,
        closing(client.address.connection(LIMIT)) as connection,
    ):
        measured = [_asked_for(connection) for _ in range(WARM_UP + times)][WARM_UP:]
    beyond = median(asked - guests for asked, guests in measured)
    return [
        Result("exec_overhead", 1000 * beyond, "ms", TARGET_MS, "limit", 1.0),
        Result("exec_in_guest", 1000 * median(guests for _, guests in measured), "ms"),
    ]


BENCHMARK = Benchmark(("exec_overhead", "exec_in_guest"), _exec_overhead)
