"""guest_overhead: GMP-ECM in our machine against the same QEMU without our software, in s.

One curve with a fixed sigma on a fixed number: the same work each time. Both sides time it in the
guest, by the same shell script, with /proc/uptime (10 ms steps) around the program. Ours runs it
through the agent, with its heartbeats, control groups and output; the other side runs it in the
init script's shell, with a QEMU that has no QMP, agent or transfer disk. Both machines stay up and
compute alternately for some seconds: a host's speed drifts by more than what is measured here.
"""

import asyncio
import socket
from statistics import median

from benchmarks.bare_machine import LIMIT, bare_machine
from benchmarks.booted import booted, start_program
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.machine.session import Session

# RSA-100: its factors have 50 digits each, so one curve finds none and ends when it is done.
NUMBER = (
    "15226050279225333605356183781326374297180681149613"
    "80688657908494580122963258952897654000350692006139"
)
BOUND, QUICK_BOUND = 100_000, 50_000
"""ECM's first bound; 100,000 is about 3 s under emulation."""


_READY = "shell-is-ready"


def ecm_script(bound: int) -> str:
    """Return a script that computes one curve, and prints when it began and ended."""
    return (
        f"read begin rest </proc/uptime; echo {NUMBER} | ecm -q -sigma 1:42 -c 1 {bound}"
        " >/dev/null; read end rest </proc/uptime; echo ecm $begin $end"
    )


def shell_for(script: str) -> str:
    """Return a bare machine's shell that runs the script for each line that it is sent.

    What is sent before `wait_for_shell` has returned may be lost: the line has no reader yet.
    """
    return f"exec </dev/console >/dev/console; echo {_READY}; while read -r go; do {script}; done"


def wait_for_shell(console: socket.socket) -> None:
    """Wait until the shell of a bare machine reads its console."""
    with console.makefile("r", errors="replace") as lines:
        if not any(_READY in line for line in lines):
            raise EOFError("the bare machine ended before its shell began")


def _seconds(line: str) -> float:
    _, begin, end = line.split()
    return float(end) - float(begin)


async def _in_ours(session: Session, script: str) -> float:
    output: list[bytes] = []
    async with asyncio.timeout(LIMIT):
        program = start_program(session, ["sh", "-c", script], lambda _, data: output.append(data))
        program.end_input()
        await session.guard(program.wait())
    return _seconds(b"".join(output).decode())


def ecm_in_bare(console: socket.socket) -> float:
    """Have a bare machine with `shell_for` compute a curve; return how long it took, in seconds."""
    console.sendall(b"go\n")
    with console.makefile("r", errors="replace") as lines:
        for line in lines:
            # The firmware's control characters share the first line.
            if (location := line.find("ecm ")) >= 0:
                return _seconds(line[location:])
    raise EOFError("the bare machine ended without a result")


async def _by_turns(laboratory: Laboratory, script: str, times: int) -> tuple[float, float]:
    """Return the medians of ours and of theirs, in seconds."""
    location = laboratory.accelerator, laboratory.directory
    shell = shell_for(script)
    measured: tuple[list[float], list[float]] = ([], [])
    async with (
        booted(laboratory.sci, *location) as session,
        bare_machine(laboratory.sci, location[0], shell, location[1]) as bare,
    ):
        await asyncio.to_thread(wait_for_shell, bare.console)
        for turn in range(times + 1):
            laboratory.log(f"{turn} of {times}")
            ours = await _in_ours(session, script)
            theirs = await asyncio.to_thread(ecm_in_bare, bare.console)
            if turn > 0:  # the first run of each reads its program from the disk
                measured[0].append(ours)
                measured[1].append(theirs)
    return median(measured[0]), median(measured[1])


def _guest_overhead(laboratory: Laboratory) -> list[Result]:
    script = ecm_script(QUICK_BOUND if laboratory.quick else BOUND)
    ours, theirs = asyncio.run(_by_turns(laboratory, script, laboratory.times(15, 3)))
    return [Result("guest_overhead", ours, "s", theirs, "nothing of ours in QEMU", 1.02)]


BENCHMARK = Benchmark(("guest_overhead",), _guest_overhead)
