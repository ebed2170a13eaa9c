"""idle_cpu_boinc: what our process takes while its task computes and the client says nothing.

`boincvm-wrapper` under FakeClient, which sends its heartbeat and reads the status once a second;
the task sleeps, because its own work does not count. CPU time of our process and of the guard
beside the task, in % of one core, over the window.
"""

import asyncio
from time import perf_counter

from benchmarks.boinc_task import (
    STOCK,
    STOCK_IDLE_PERCENT,
    Job,
    cpu_nanoseconds,
    descendants,
    job_under_client,
)
from benchmarks.results import Benchmark, Laboratory, Result

WINDOW, QUICK_WINDOW = 60.0, 20.0
"""Seconds."""
LIMIT_PERCENT = 0.2
_SLEEPS = Job('echo "$$" >"$WORDS"; exec sleep 1000\n')


async def _watch(laboratory: Laboratory, window: float) -> float:
    async with job_under_client(laboratory, _SLEEPS) as job:
        await job.start()
        worker = int(await job.word())
        await job.client.status()  # late imports are done by now
        processes = [pid for pid in descendants(job.client.pid) if pid != worker]

        def used() -> int:
            return sum(map(cpu_nanoseconds, processes))

        before, begin = used(), perf_counter()
        await asyncio.sleep(window)
        return 100 * (used() - before) / 1e9 / (perf_counter() - begin)


def _idle(laboratory: Laboratory) -> list[Result]:
    window = QUICK_WINDOW if laboratory.quick else WINDOW
    laboratory.log(f"a task that sleeps for {window:g} s")
    percent = asyncio.run(_watch(laboratory, window))
    target = LIMIT_PERCENT / STOCK_IDLE_PERCENT
    return [Result("idle_cpu_boinc", percent, "%", STOCK_IDLE_PERCENT, STOCK, target)]


BENCHMARK = Benchmark(("idle_cpu_boinc",), _idle)
