"""guest_overhead: GMP-ECM in our machine against the same QEMU with nothing of ours, in s.

One curve with a fixed sigma on a fixed number: the same work each time. Both sides time it in
the guest, by the same shell script, with /proc/uptime (10 ms steps) around the program. Ours
runs it through the agent, with its heart-beats, control groups and output; the other side
runs it as the init script's shell, QEMU having no QMP, agent or transfer disk.
"""

import asyncio
import socket

from benchmarks.bare_machine import LIMIT, POWER_OFF, bare_machine
from benchmarks.booted import booted, start_program
from benchmarks.interleave import interleaved_medians
from benchmarks.results import Benchmark, Laboratory, Result

# RSA-100: its factors have 50 digits each, so one curve finds none and ends when it is done.
NUMBER = (
    "15226050279225333605356183781326374297180681149613"
    "80688657908494580122963258952897654000350692006139"
)
BOUND, QUICK_BOUND = 300_000, 50_000
"""ECM's first bound; 300,000 is about 15 s under emulation."""


def _script(bound: int) -> str:
    return (
        f"read begin rest </proc/uptime; echo {NUMBER} | ecm -q -sigma 1:42 -c 1 {bound}"
        " >/dev/null; read end rest </proc/uptime; echo ecm $begin $end"
    )


def _seconds(line: str) -> float:
    _, begin, end = line.split()
    return float(end) - float(begin)


def _in_ours(laboratory: Laboratory, script: str) -> float:
    async def measure() -> float:
        output: list[bytes] = []
        machine = booted(laboratory.sci, laboratory.accelerator, laboratory.directory)
        async with machine as session, asyncio.timeout(LIMIT):
            program = start_program(
                session, ["sh", "-c", script], lambda _, data: output.append(data)
            )
            await session.guard(program.wait())
        return _seconds(b"".join(output).decode())

    return asyncio.run(measure())


def _in_bare(laboratory: Laboratory, script: str) -> float:
    shell = f"exec >/dev/console; {script}; {POWER_OFF}"

    async def measure() -> float:
        machine = bare_machine(laboratory.sci, laboratory.accelerator, shell, laboratory.directory)
        async with machine as bare:
            return await asyncio.to_thread(_read_console, bare.console)

    return asyncio.run(measure())


def _read_console(console: socket.socket) -> float:
    with console.makefile("r", errors="replace") as lines:
        for line in lines:
            # The firmware's control characters share the first line.
            if (place := line.find("ecm ")) >= 0:
                return _seconds(line[place:])
    raise EOFError("the bare machine ended without a result")


def _guest_overhead(laboratory: Laboratory) -> list[Result]:
    script = _script(QUICK_BOUND if laboratory.quick else BOUND)
    ours, theirs = interleaved_medians(
        lambda: _in_ours(laboratory, script),
        lambda: _in_bare(laboratory, script),
        laboratory.times(5, 3),
        laboratory.say,
    )
    return [Result("guest_overhead", ours, "s", theirs, "nothing of ours in QEMU", 1.02)]


BENCHMARK = Benchmark(("guest_overhead",), _guest_overhead)
