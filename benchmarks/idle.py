"""idle_cpu, wrapper_rss: what our own process takes while the guest computes and says nothing.

A real `boincvm run` of a program that computes without end, once it has begun. idle_cpu: user and
system time of that one process (QEMU is another), in % of one core over the window, from
/proc/PID/task/*/schedstat (the source of utime and stime in /proc/PID/stat, but in ns, while those
count 10 ms). wrapper_rss, wrapper_peak: VmRSS and VmHWM at its end, in MiB.
"""

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from time import perf_counter

from benchmarks.bare_machine import LIMIT
from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.results import Benchmark, Laboratory, Result

WINDOW, QUICK_WINDOW = 60.0, 15.0
"""Seconds."""
CPU_TARGET = 0.2
RSS_TARGET = 40.0
_PROGRAM = "print('begun', flush=True)\nwhile True: pass"


def _cpu_seconds(pid: int) -> float:
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def _memory_mib(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise LookupError(field)


async def _watch(window: float) -> tuple[float, float, float]:
    """Return CPU in % of a core, resident memory and its peak in MiB."""
    process = await asyncio.create_subprocess_exec(
        *(BOINCVM, "run", "--", "python3", "-SIc", _PROGRAM),
        env=clean_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        if process.stdout is not None:
            async with asyncio.timeout(LIMIT):
                await process.stdout.readline()
        cpu, begin = _cpu_seconds(process.pid), perf_counter()
        # It must still run when the window is over: waiting for its end makes the window.
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), window)
        used = _cpu_seconds(process.pid) - cpu
        percent = 100 * used / (perf_counter() - begin)
        return percent, _memory_mib(process.pid, "VmRSS"), _memory_mib(process.pid, "VmHWM")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), LIMIT)
            except TimeoutError:
                process.kill()
                await process.wait()


def _idle(laboratory: Laboratory) -> list[Result]:
    window = QUICK_WINDOW if laboratory.quick else WINDOW
    laboratory.log(f"a guest that computes for {window:g} s")
    cpu, rss, peak = asyncio.run(_watch(window))
    return [
        Result("idle_cpu", cpu, "%", CPU_TARGET, "limit", 1.0),
        Result("wrapper_rss", rss, "MiB", RSS_TARGET, "limit", 1.0),
        Result("wrapper_peak", peak, "MiB", RSS_TARGET, "limit of wrapper_rss"),
    ]


BENCHMARK = Benchmark(("idle_cpu", "wrapper_rss", "wrapper_peak"), _idle)
