"""exit_reaction: from the guest program's exit until the host knows of it, in ms.

The time begins with the clock that the program (Python) reads just before it ends: it writes that
time to its standard output and calls _exit. It ends when `GuestProgram.wait` returns on the host,
which is where `boincvm run` learns of it. So it covers the write, the kernel's cleanup of the
process, SIGCHLD to the agent, the agent's look at remaining processes and resource usage, the
frame, the port, and the host's event loop. It leaves out what `boincvm run` does next: taking the
machine down.

The guest's clock is compared with the host's by round trips in the same program just before: the
host sends a line, the program answers with its time, and the shortest exchange counts, as in NTP.
The error is at most half of that exchange; `exit_clock_error` is its median.
"""

import asyncio
from statistics import median
from time import time

from benchmarks.booted import booted, start_program
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.machine.session import Session

EXCHANGES = 12
LIMIT = 60.0
TARGET_MS = 20.0

_PROGRAM = f"""
import os, time
def tell():
    os.write(1, b"%d\\n" % time.time_ns())
for _ in range({EXCHANGES}):
    os.read(0, 1)
    tell()
os.read(0, 1)
tell()
os._exit(0)
"""


async def _one_exit(session: Session) -> tuple[float, float]:
    """Return the seconds from the exit until it is known, and the largest possible clock error."""
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    argv = ["python3", "-SIc", _PROGRAM]
    program = start_program(session, argv, lambda _, data: lines.put_nowait(data))
    offsets: list[tuple[float, float]] = []
    for _ in range(EXCHANGES):
        begin = time()
        program.feed(b".")
        there = int(await lines.get()) / 1e9
        end = time()
        offsets.append((end - begin, there - (begin + end) / 2))
    program.feed(b".")
    await program.wait()
    known = time()
    shortest, offset = min(offsets)
    left = int(lines.get_nowait()) / 1e9 - offset
    return known - left, shortest / 2


def _exit_reaction(laboratory: Laboratory) -> list[Result]:
    times = laboratory.times(40, 20)
    laboratory.log(f"{times} programs")

    async def measure() -> list[tuple[float, float]]:
        machine = booted(laboratory.base, laboratory.accelerator, laboratory.directory)
        async with machine as session:

            async def all_of_them() -> list[tuple[float, float]]:
                async with asyncio.timeout(LIMIT + times):
                    return [await _one_exit(session) for _ in range(times)]

            return await session.guard(all_of_them())

    reactions, errors = zip(*asyncio.run(measure()), strict=True)
    return [
        Result("exit_reaction", 1000 * median(reactions), "ms", TARGET_MS, "limit", 1.0),
        Result("exit_clock_error", 1000 * median(errors), "ms"),
    ]


BENCHMARK = Benchmark(("exit_reaction", "exit_clock_error"), _exit_reaction)
