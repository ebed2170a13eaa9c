"""link_round_trip: a request to the agent and its answer, in µs; median of many.

Requests a file that does not exist, which is the shortest of the agent's answers. Compared with one
byte there and back over the port of a machine without our software, echoed by a Python loop.
"""

import asyncio
from statistics import median
from time import perf_counter

from benchmarks.booted import booted
from benchmarks.pump import echo_seconds
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.bus.stomp import Frame
from boincvm.machine.session import Session

WARM_UP = 20
LIMIT = 60.0


async def _ask(session: Session) -> float:
    answered = asyncio.Event()

    def answer(_word: str, _frame: Frame) -> None:
        answered.set()

    begin = perf_counter()
    call = session.link.call(answer)
    call.send("get", {}, b"nothing")
    await answered.wait()
    call.close()
    return perf_counter() - begin


async def _ours(laboratory: Laboratory, count: int) -> list[float]:
    async with booted(laboratory.base, laboratory.accelerator, laboratory.directory) as session:

        async def questions() -> list[float]:
            async with asyncio.timeout(LIMIT):
                return [await _ask(session) for _ in range(WARM_UP + count)]

        return (await session.guard(questions()))[WARM_UP:]


def _round_trip(laboratory: Laboratory) -> list[Result]:
    count = 500 if laboratory.quick else 2000
    ours: list[float] = []
    theirs: list[float] = []
    times = laboratory.times(3, 1)
    for turn in range(times):
        laboratory.log(f"{turn + 1} of {times}")
        ours += asyncio.run(_ours(laboratory, count))
        theirs += echo_seconds(laboratory.base, laboratory.accelerator, laboratory.directory, count)
    against = "one byte over the bare port"
    return [Result("link_round_trip", 1e6 * median(ours), "µs", 1e6 * median(theirs), against)]


BENCHMARK = Benchmark(("link_round_trip",), _round_trip)
