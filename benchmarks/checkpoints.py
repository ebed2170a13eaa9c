"""checkpoint_pause_256, checkpoint_pause_1024, checkpoint_increment, checkpoint_overhead, resume.

Pause: GMP-ECM computes in the guest; the longest time for which its processor stood still around a
checkpoint, in ms; the median of several checkpoints. Increment: bytes of the second checkpoint of a
guest that sleeps, against those of the first. Overhead: the same curve timed alternately with and
without checkpoints; enough are made for their cost to be visible, and the cost of one is set
against 60 s. Resume: from starting a saved machine, its files dropped from the page cache as far as
possible, to its program's next output, in seconds.
"""

import asyncio
import os
from statistics import median
from time import monotonic
from typing import NamedTuple

from benchmarks.booted import start_program
from benchmarks.checkpointed_machine import LIMIT, compute, let_run, machine, make_checkpoint
from benchmarks.guest_overhead import NUMBER
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram
from boincvm.hypervisor.contract import Checkpoint, MachineSpec
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.machine.saved_machine import check_files
from boincvm.machine.session import Session

MIB = 1 << 20
PERIOD = 60.0


async def _pauses(laboratory: Laboratory, memory: int, times: int) -> list[float]:
    location = laboratory.sci, laboratory.accelerator, laboratory.directory
    async with machine(*location, memory) as (session, made):
        compute(session)
        await let_run(3)
        gaps = []
        for number in range(1, times + 1):
            gaps.append((await make_checkpoint(session, made, number)).gap)
            await let_run(1)
        return gaps


def _pause(laboratory: Laboratory) -> list[Result]:
    times = laboratory.times(9, 3)
    results = []
    for mebibytes, limit in ((256, 20.0), (1024, 40.0)):
        laboratory.log(f"{mebibytes} MiB")
        gap = median(asyncio.run(_pauses(laboratory, mebibytes * MIB, times))) * 1e3
        name = f"checkpoint_pause_{mebibytes}"
        results.append(Result(name, gap, "ms", limit, "a limit", 1.0))
    return results


async def _increments(laboratory: Laboratory) -> tuple[int, int]:
    location = laboratory.sci, laboratory.accelerator, laboratory.directory
    async with machine(*location, 256 * MIB) as (session, made):
        compute(session, "while :; do sleep 1; done")
        await let_run(3)
        written = []
        for number in (1, 2):
            written.append((await make_checkpoint(session, made, number)).checkpoint.written)
            await let_run(10)
        return written[0], written[1]


def _increment(laboratory: Laboratory) -> list[Result]:
    first, second = asyncio.run(_increments(laboratory))
    return [Result("checkpoint_increment", second / MIB, "MiB", first / MIB, "the first one", 0.15)]


async def _curves(laboratory: Laboratory, turns: int) -> tuple[float, float]:
    """Return the seconds of a piece of work without checkpoints, and those that each one adds."""
    location = laboratory.sci, laboratory.accelerator, laboratory.directory
    script = f"echo {NUMBER} | ecm -q -sigma 1:42 -c 1 100000 >/dev/null"
    plain: list[float] = []
    costs: list[float] = []
    number = 0
    async with machine(*location, 256 * MIB) as (session, made):
        for turn in range(turns + 1):
            laboratory.log(f"{turn} of {turns}")
            seconds = await _curve(session, script)
            begin = monotonic()
            program = start_program(session, ["sh", "-c", script], lambda *_: None)
            program.end_input()
            ended = asyncio.ensure_future(program.wait())
            made_now = 0
            while not ended.done() and made_now < 4:
                number += 1
                await make_checkpoint(session, made, number)
                made_now += 1
            await ended
            if turn:  # the first checkpoint is complete, and the first curve is translated
                plain.append(seconds)
                costs.append((monotonic() - begin - seconds) / made_now)
    return median(plain), median(costs)


async def _curve(session: Session, script: str) -> float:
    begin = monotonic()
    program = start_program(session, ["sh", "-c", script], lambda *_: None)
    program.end_input()
    await program.wait()
    return monotonic() - begin


def _overhead(laboratory: Laboratory) -> list[Result]:
    _, cost = asyncio.run(_curves(laboratory, laboratory.times(7, 2)))
    share = max(cost, 0.0) / PERIOD * 100
    return [Result("checkpoint_overhead", share, "%", 2.0, "a limit", 1.0)]


async def _resumed(laboratory: Laboratory, times: int) -> list[float]:
    location = laboratory.sci, laboratory.accelerator, laboratory.directory
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"
    taken = []
    async with machine(*location, 256 * MIB) as (session, made):
        program = start_program(session, ["sh", "-c", script], lambda *_: None)
        await let_run(2)
        await session.link.quiesce(LIMIT)
        link, state = session.link.state(), program.state()
        checkpoint = await made.save(1)
        saved = _Saved(made.spec, checkpoint, link, state)
        taken.extend([await _resume(laboratory, saved) for _ in range(times)])
    return taken


class _Saved(NamedTuple):
    spec: MachineSpec
    checkpoint: Checkpoint
    link: dict[str, object]
    program: dict[str, object]


async def _resume(laboratory: Laboratory, saved: _Saved) -> float:
    directory, checkpoint = saved.spec.directory, saved.checkpoint
    for name in checkpoint.files:
        descriptor = os.open(directory / name, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    spoke = asyncio.Event()
    begin = monotonic()
    check_files(directory, checkpoint.files)  # as the wrapper does
    again = QemuDriver(laboratory.accelerator).restore(saved.spec, checkpoint)
    link = await GuestLink.open(await again.start(), attach_to=saved.link)
    try:
        GuestProgram.attached(link, saved.program, output=lambda *_: spoke.set())
        await link.attach(LIMIT, let_run=again.resume)
        async with asyncio.timeout(LIMIT):
            await spoke.wait()
        return monotonic() - begin
    finally:
        await again.stop()
        link.close()


def _resume_time(laboratory: Laboratory) -> list[Result]:
    taken = median(asyncio.run(_resumed(laboratory, laboratory.times(7, 3))))
    return [Result("resume", taken, "s", 1.0, "a limit", 1.0)]


PAUSE = Benchmark(("checkpoint_pause_256", "checkpoint_pause_1024"), _pause)
INCREMENT = Benchmark(("checkpoint_increment",), _increment)
OVERHEAD = Benchmark(("checkpoint_overhead",), _overhead)
RESUME = Benchmark(("resume",), _resume_time)
