"""warm_start, clone_ready, clone_private_memory: machines that start as copies of a golden one.

warm_start: `boincvm run -- true` from a golden snapshot against the same from a boot, both as whole
processes, alternately, in seconds. clone_ready: from the start of a copy's QEMU to its agent's
answer, in ms. clone_private_memory: the private memory of each of ten running copies of a guest of
256 MiB, in MiB: RSS without what is mapped from files (Anonymous in smaps_rollup).
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from time import monotonic

from benchmarks.bare_machine import LIMIT
from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.interleave import interleaved_medians
from benchmarks.results import Benchmark, Laboratory, Result
from benchmarks.whole_process import seconds_of
from boincvm.guestlink.clone_identity import clone_identity
from boincvm.guestlink.link import GuestLink
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.job.model import Limits, MachineShape
from boincvm.machine.golden.maker import make_golden
from boincvm.machine.golden.snapshots import find_golden
from boincvm.machine.spec import machine_spec

COPIES = 10
SHAPE = MachineShape(memory=256 << 20)


def _run_true(golden: str) -> float:
    environment = {**clean_environment(), "BOINCVM_GOLDEN": golden}
    return seconds_of([BOINCVM, "run", "--memory", "256M", "--", "true"], environment, LIMIT)


def _warm_start(laboratory: Laboratory) -> list[Result]:
    asyncio.run(make_snapshot(laboratory))
    _run_true("")
    warm, cold = interleaved_medians(
        lambda: _run_true(""),
        lambda: _run_true("no"),
        laboratory.times(9, 3),
        laboratory.log,
    )
    return [
        Result("warm_start", warm, "s", cold, "a cold start", 0.1),
        Result("warm_start_seconds", warm, "s", 0.25, "a limit", 1.0),
    ]


async def make_snapshot(laboratory: Laboratory) -> None:
    """Make the golden snapshot of machines of SHAPE, if there is none."""
    image = laboratory.base
    spec = machine_spec(SHAPE, image, image.golden)
    await make_golden(QemuDriver(laboratory.accelerator), image, spec, Limits())


async def _copies(laboratory: Laboratory, count: int) -> tuple[list[float], list[float]]:
    """Start copies one after the other; return the seconds until each answered and its own MiB."""
    driver, image = QemuDriver(laboratory.accelerator), laboratory.base
    taken, private = [], []
    async with AsyncExitStack() as stack:
        machines = []
        for _ in range(count):
            directory = tempfile.TemporaryDirectory(dir=laboratory.directory)
            location = Path(stack.enter_context(directory))
            spec = machine_spec(SHAPE, image, location)
            snapshots = driver.golden_snapshots
            assert snapshots is not None
            found = find_golden(image, spec, snapshots.identity())
            golden = found.golden
            assert golden is not None, found.why
            begin = monotonic()
            made = snapshots.clone(spec, golden.directory)
            stack.push_async_callback(made.destroy)
            link = await GuestLink.open(await made.start(), attach_to=golden.link)
            stack.callback(link.close)
            await link.attach(LIMIT, clone_identity(network=False))
            taken.append(monotonic() - begin)
            machines.append(made)
        for made in machines:
            (pid,) = made.process_ids()
            private.append(_anonymous(pid))
    return taken, private


def _anonymous(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) / 1024
    raise ValueError("the kernel does not tell")


def _clones(laboratory: Laboratory) -> list[Result]:
    asyncio.run(make_snapshot(laboratory))
    taken, private = asyncio.run(_copies(laboratory, COPIES))
    return [
        Result("clone_ready", median(taken) * 1e3, "ms", 80.0, "a limit", 1.0),
        Result("clone_private_memory", median(private), "MiB", 30.0, "a limit", 1.0),
    ]


WARM = Benchmark(("warm_start", "warm_start_seconds"), _warm_start)
CLONES = Benchmark(("clone_ready", "clone_private_memory"), _clones)
