"""output_stream: how fast a program's standard output comes, in MB/s (10^6 bytes).

`boincvm run -- head -c 256M /dev/zero`, output to /dev/null, over the time of the run phase as
`--json` would report it: here the same engine in this process, each piece taken immediately. The
length received is compared with the length requested.
"""

import asyncio
from statistics import median
from time import perf_counter

from benchmarks.bare_machine import LIMIT
from benchmarks.booted import booted, start_program
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.machine.session import Session

SIZE, QUICK_SIZE = 1 << 28, 1 << 26


async def _stream(session: Session, size: int) -> float:
    """Return bytes per second."""
    came = 0

    def take(_stream: str, data: bytes) -> None:
        nonlocal came
        came += len(data)
        program.grant(len(data))

    begin = perf_counter()
    program = start_program(session, ["head", "-c", str(size), "/dev/zero"], take)
    async with asyncio.timeout(LIMIT):
        await program.wait()
    if came != size:
        raise EOFError(f"{came} bytes of output instead of {size}")
    return size / (perf_counter() - begin)


def _output_stream(laboratory: Laboratory) -> list[Result]:
    size = QUICK_SIZE if laboratory.quick else SIZE
    times = laboratory.times(3, 1)
    laboratory.log(f"{times} times {size >> 20} MiB")

    async def measure() -> list[float]:
        machine = booted(laboratory.base, laboratory.accelerator, laboratory.directory)
        async with machine as session:

            async def streams() -> list[float]:
                return [await _stream(session, size) for _ in range(times)]

            return await session.guard(streams())

    return [Result("output_stream", median(asyncio.run(measure())) / 1e6, "MB/s")]


BENCHMARK = Benchmark(("output_stream",), _output_stream)
