"""suspend_vm: from the client's message until the guest's processor stands still, in ms.

`boincvm-wrapper` under FakeClient with a task in a machine that computes without end. The message
is sent at the client's tick, as clients send it. The end is when the hypervisor's processor time
last grew, sampled every half millisecond, with no growth for `STILL` seconds after it.
"""

import asyncio
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks.boinc_reactions import say_at_tick
from benchmarks.boinc_task import (
    LIMIT,
    STOCK,
    STOCK_SUSPEND_MS,
    Job,
    cpu_nanoseconds,
    first_seen,
    job_under_client,
)
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.boinc.messages import Control
from boincvm.host.process_tree import children

STILL = 0.3
GOES_ON = 50_000_000
"""Nanoseconds of processor time that show that the guest runs again."""
_TARGET = 0.1
_COMPUTES = Job(
    "echo 0.5 >fraction_done\nwhile :; do :; done\n",
    "<virtualmachine>machine</virtualmachine><copy_app_to_VM>1</copy_app_to_VM>"
    "<fraction_done_filename>fraction_done</fraction_done_filename>",
)


async def _suspensions(laboratory: Laboratory, times: int) -> list[float]:
    async with job_under_client(laboratory, _COMPUTES) as job:
        await job.start()
        client = job.client
        await client.until(
            lambda: any(text.value.fraction_done > 0 for text in client.statuses), LIMIT
        )
        # The machine of a golden snapshot made meanwhile is not a direct child of the wrapper.
        (machine,) = (pid for pid in children(client.pid) if _is_machine(pid))
        taken = []
        for _ in range(times):
            sent = await say_at_tick(job, Control.SUSPEND)
            taken.append(await _stands_still(machine) - sent)
            await say_at_tick(job, Control.RESUME)
            await _grows(machine)
        return taken


def _is_machine(pid: int) -> bool:
    return b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]


async def _stands_still(pid: int) -> float:
    """Wait until the process stands still.

    Returns when its processor time last grew, by the monotonic clock.
    """
    used, last = cpu_nanoseconds(pid), monotonic()

    def has_rested() -> bool:
        nonlocal used, last
        now = cpu_nanoseconds(pid)
        if now > used:
            used, last = now, monotonic()
        return monotonic() > last + STILL

    await first_seen(has_rested)
    return last


async def _grows(pid: int) -> None:
    used = cpu_nanoseconds(pid)
    await first_seen(lambda: cpu_nanoseconds(pid) > used + GOES_ON)


def _suspend(laboratory: Laboratory) -> list[Result]:
    times = laboratory.times(15, 5)
    laboratory.log(f"{times} suspensions of a machine")
    taken = asyncio.run(_suspensions(laboratory, times))
    return [
        Result(
            "suspend_vm", 1000 * median(taken), "ms", STOCK_SUSPEND_MS, f"{STOCK}, host", _TARGET
        )
    ]


BENCHMARK = Benchmark(("suspend_vm",), _suspend)
