"""suspend_host, abort, finish, start_host: how soon a task of the host obeys the client, in ms.

`boincvm-wrapper` under FakeClient, as a client would run it, with a shell script as the task.

- suspend_host: from the client's message, sent at its tick as clients send it, until /proc shows
  the worker as stopped, sampled every half millisecond.
- abort: from the message, sent at any moment, to the end of the last process (pidfd).
- finish: from the worker's end to our own (pidfd), from which the client learns of it.
- start_host: from just before our process is started to the worker's first output.
"""

import asyncio
from statistics import median
from time import monotonic

from benchmarks.boinc_task import (
    STOCK,
    STOCK_ABORT_MS,
    STOCK_FINISH_MS,
    STOCK_SUSPEND_MS,
    Job,
    RunningJob,
    Watched,
    descendants,
    has_state,
    job_under_client,
)
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.boinc.messages import Control

START_LIMIT_MS = 120.0
_TARGET = 0.1
"""At most a tenth of what BOINC's own wrapper takes."""
_STAYS = Job('echo "$$" >"$WORDS"; exec sleep 1000\n')
_ENDS_WHEN_TOLD = Job('echo "$$" >"$WORDS"; read -r line <"$GO"\n')


async def _suspensions(laboratory: Laboratory, times: int) -> list[float]:
    async with job_under_client(laboratory, _STAYS) as job:
        await job.start()
        worker = int(await job.word())
        taken = []
        for _ in range(times):
            sent = await say_at_tick(job, Control.SUSPEND)
            taken.append(await has_state(worker, "T") - sent)
            await say_at_tick(job, Control.RESUME)
            await has_state(worker, "SR")
        return taken


async def say_at_tick(job: RunningJob, control: Control) -> float:
    """Send a message at the client's tick; return when the app could first see it."""
    count = len(job.client.sent)
    job.client.send(control, at_tick=True)
    await job.client.until(lambda: len(job.client.sent) > count)
    return job.client.sent[-1].at


async def _abort(laboratory: Laboratory) -> float:
    async with job_under_client(laboratory, _STAYS) as job:
        await job.start()
        await job.word()
        watched = [Watched(pid) for pid in descendants(job.client.pid)]
        # At any moment of the client's second.
        await job.client.status()
        job.client.send(Control.ABORT)
        sent = job.client.sent[-1].at
        ends = await asyncio.gather(*(process.end() for process in watched))
        await job.client.wait()
        return max(ends) - sent


async def _start_and_finish(laboratory: Laboratory) -> tuple[float, float]:
    async with job_under_client(laboratory, _ENDS_WHEN_TOLD) as job:
        begin = monotonic()
        await job.start()
        worker = int(await job.word())
        started = monotonic() - begin
        ours, its = Watched(job.client.pid), Watched(worker)
        job.go()
        ends = await asyncio.gather(its.end(), ours.end())
        await job.client.wait()
        return started, ends[1] - ends[0]


def _reactions(laboratory: Laboratory) -> list[Result]:
    times = laboratory.times(15, 5)

    async def measure() -> tuple[float, float, float, float]:
        laboratory.log(f"{times} suspensions")
        suspend = median(await _suspensions(laboratory, times))
        laboratory.log(f"{times} aborts")
        abort = median([await _abort(laboratory) for _ in range(times)])
        laboratory.log(f"{times} starts and ends")
        both = [await _start_and_finish(laboratory) for _ in range(times)]
        start, finish = (median(side) for side in zip(*both, strict=True))
        return suspend, abort, finish, start

    suspend, abort, finish, start = (1000 * seconds for seconds in asyncio.run(measure()))
    return [
        Result("suspend_host", suspend, "ms", STOCK_SUSPEND_MS, STOCK, _TARGET),
        Result("abort", abort, "ms", STOCK_ABORT_MS, STOCK, _TARGET),
        Result("finish", finish, "ms", STOCK_FINISH_MS, STOCK, _TARGET),
        Result("start_host", start, "ms", START_LIMIT_MS, "limit", 1.0),
    ]


BENCHMARK = Benchmark(("suspend_host", "abort", "finish", "start_host"), _reactions)
