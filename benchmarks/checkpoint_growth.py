"""How a checkpoint's pause, bytes and time grow with the guest's memory: a table and a plot.

A quarter of the memory is filled with random bytes that stay, then GMP-ECM computes; a first
checkpoint writes all of that, later ones what has changed. Run separately, because it takes
minutes: `python -m benchmarks.checkpoint_growth [--plot FILE] [MIB ...]`.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.booted import start_program
from benchmarks.checkpointed_machine import Made, compute, let_run, machine, make_checkpoint
from benchmarks.growth_chart import chart
from boincvm.hypervisor.qemu.acceleration import probe
from boincvm.image.store import Image, ImageStore

MIB = 1 << 20
SIZES = (128, 256, 512, 1024, 2048, 4096)
LATER = 5
"""Number of checkpoints after the first one."""
FILL = """
import os, sys, time
piece = 1 << 20
kept = [os.urandom(piece) for _ in range({pieces})]
print("filled", flush=True)
time.sleep(1e6)
"""


class Growth(NamedTuple):
    """Figures of the first checkpoint, and medians of the later ones: ms, MiB, seconds."""

    size: int
    first_gap: float
    first_bytes: float
    first_seconds: float
    gap: float
    bytes: float
    seconds: float


async def measure(image: Image, accelerator: str, scratch: Path, size: int) -> Growth:
    """Measure checkpoints of a guest with `size` MiB of memory."""
    async with machine(image, accelerator, scratch, size * MIB) as (session, made):
        filled = asyncio.Event()
        code = FILL.format(pieces=size // 4)
        start_program(session, ["python3", "-c", code], lambda *_: filled.set())
        async with asyncio.timeout(600):
            await filled.wait()
        compute(session)
        await let_run(3)
        first = await make_checkpoint(session, made, 1)
        later: list[Made] = []
        for number in range(2, 2 + LATER):
            await let_run(2)
            later.append(await make_checkpoint(session, made, number))
    return Growth(
        size,
        first.gap * 1e3,
        first.checkpoint.written / MIB,
        first.seconds,
        median(stored.gap for stored in later) * 1e3,
        median(stored.checkpoint.written for stored in later) / MIB,
        median(stored.seconds for stored in later),
    )


def _plot(rows: list[Growth]) -> str:
    return chart(
        [row.size for row in rows],
        {
            "longest pause, ms": {
                "first": [row.first_gap for row in rows],
                "later": [row.gap for row in rows],
            },
            "written, MiB": {
                "first": [row.first_bytes for row in rows],
                "later": [row.bytes for row in rows],
            },
            "time, s": {
                "first": [row.first_seconds for row in rows],
                "later": [row.seconds for row in rows],
            },
        },
    )


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint_growth")
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="MIB")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a chart, as SVG")
    arguments = parser.parse_args()
    rows: list[Growth] = []
    print("| memory, MiB | pause, ms | written, MiB | time, s | later: pause | written | time |")
    print("|---|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(prefix="boincvm-bench-") as scratch,
        ImageStore().open("sci") as image,
    ):
        accelerator = asyncio.run(probe(image.kernel)).accelerator
        for size in arguments.sizes:
            row = asyncio.run(measure(image, accelerator, Path(scratch), size))
            rows.append(row)
            values = [f"{value:.3g}" for value in row[1:]]
            print("|", " | ".join([str(size), *values]), "|", flush=True)
    if arguments.plot is not None:
        arguments.plot.write_text(_plot(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
