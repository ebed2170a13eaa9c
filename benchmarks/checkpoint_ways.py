"""Ways in which QEMU can put a running machine on disk, compared: a table.

Each is tried on a machine of its own in which GMP-ECM computes, after a quarter of its memory was
filled with random bytes that stay. Run separately, because it takes minutes: `python -m
benchmarks.checkpoint_ways [MIB ...]`.

Except for ours, only QEMU's part is measured: these ways do not read back what they wrote, do not
sync it, and (all but the first) leave out the disk. That is to their advantage.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import monotonic
from typing import NamedTuple, cast

from benchmarks.booted import start_program
from benchmarks.checkpoint_growth import FILL
from benchmarks.checkpointed_machine import StandStill, compute, let_run, make_checkpoint
from boincvm.errors import HypervisorError
from boincvm.hypervisor.contract import MachineSpec
from boincvm.hypervisor.qemu.acceleration import probe
from boincvm.hypervisor.qemu.command import layer_node
from boincvm.hypervisor.qemu.driver import QemuDriver
from boincvm.hypervisor.qemu.machine import QemuMachine
from boincvm.hypervisor.qemu.monitor import Monitor
from boincvm.image.store import Image, ImageStore
from boincvm.machine.managed import opened
from boincvm.machine.session import Session
from boincvm.machine.start_source import Boot

MIB = 1 << 20
SIZES = (256, 1024)
TIMES = 5
LIMIT = 120.0
_BANDWIDTH = 16 << 30
_OVER = ("completed", "failed", "cancelled")


Way = Callable[[QemuMachine, int], Awaitable[None]]
"""Takes the snapshot of that number."""


class Taken(NamedTuple):
    """The costs of a snapshot."""

    gap: float
    """Seconds; the longest time for which the guest's processor stood still."""
    seconds: float
    """From beginning to end."""
    written: int
    """Bytes."""


def monitor_of(made: QemuMachine) -> Monitor:
    """Return QEMU's monitor, which is hidden from a machine's users."""
    monitor = made._monitor
    if monitor is None:
        raise RuntimeError("the machine is not running")
    return monitor


async def internal(made: QemuMachine, number: int) -> None:
    """Take a snapshot inside the disk's file."""
    monitor, node = monitor_of(made), layer_node(made._layers[-1])
    what = {"job-id": f"job{number}", "tag": f"tag{number}", "vmstate": node, "devices": [node]}
    with monitor.events("JOB_STATUS_CHANGE") as events:
        await monitor.execute("snapshot-save", dict(what))
        async with asyncio.timeout(LIMIT):
            while (await events.get())["data"] != {"status": "concluded", "id": f"job{number}"}:
                pass  # it is created, then running
    await monitor.execute("job-dismiss", {"id": f"job{number}"})


def migration(
    *capabilities: str, stopped: bool = False
) -> Callable[[QemuMachine, int], Awaitable[None]]:
    """Return a way that migrates to a file and resumes; `stopped`: stop the guest in between."""

    async def take(made: QemuMachine, number: int) -> None:
        monitor = monitor_of(made)
        wanted = [{"capability": name, "state": True} for name in ("events", *capabilities)]
        await monitor.execute("migrate-set-capabilities", {"capabilities": wanted})
        limits: dict[str, object] = {"max-bandwidth": _BANDWIDTH, "downtime-limit": 20}
        await monitor.execute("migrate-set-parameters", limits)
        file = os.open(made.spec.directory / f"state-{number}", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            await monitor.send_descriptor(file, "state")
        finally:
            os.close(file)
        with monitor.events("MIGRATION") as events:
            if stopped:
                await monitor.execute("stop")
            await monitor.execute("migrate", {"uri": "fd:state"})
            status = ""
            async with asyncio.timeout(LIMIT):
                while status not in _OVER:
                    data = (await events.get())["data"]
                    status = str(data["status"]) if isinstance(data, dict) else ""
        if status != "completed":
            raise HypervisorError(f"the migration has {status}")
        await go_on(monitor)

    return take


async def go_on(monitor: Monitor) -> None:
    """Resume the guest, trying repeatedly: QEMU reports the end early and has no event for it."""
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                await monitor.execute("cont")
            except HypervisorError:
                await asyncio.sleep(0.001)
            else:
                return


WAYS: dict[str, Way] = {
    "internal snapshot (`snapshot-save`)": internal,
    "stop, migrate to a file": migration(stopped=True),
    "migrate to a file, live": migration(),
    "`background-snapshot`": migration("background-snapshot"),
    "device state alone (`x-ignore-shared`)": migration("x-ignore-shared", stopped=True),
}


@asynccontextmanager
async def busy_machine(
    image: Image, accelerator: str, scratch: Path, size: int, *, shared: bool
) -> AsyncIterator[tuple[Session, QemuMachine]]:
    """Run a machine in which GMP-ECM computes; `shared`: its memory is a file."""
    with tempfile.TemporaryDirectory(prefix="way-", dir=scratch) as directory:
        spec = MachineSpec(
            Path(directory), image.kernel, image.initrd, image.root, memory=size * MIB, cpus=1
        )
        async with opened(QemuDriver(accelerator), spec, [Boot(freezable=shared)]) as managed:
            session, made = managed.session, cast(QemuMachine, managed.session.machine)
            filled = asyncio.Event()
            code = FILL.format(pieces=size // 4)
            start_program(session, ["python3", "-c", code], lambda *_: filled.set())
            async with asyncio.timeout(LIMIT):
                await filled.wait()
            compute(session)
            await let_run(3)
            yield session, made


def used(directory: Path) -> int:
    """Return the bytes used on the disk, except for the guest's memory if that is a file."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir() if path.name != "memory")


async def measure(
    image: Image, accelerator: str, scratch: Path, size: int, way: str
) -> list[Taken]:
    """Take TIMES snapshots in that way, one after the other."""
    taken: list[Taken] = []
    machine = busy_machine(image, accelerator, scratch, size, shared="shared" in way)
    async with machine as (_, made):
        for number in range(TIMES):
            await let_run(2)
            before, begin = used(made.spec.directory), monotonic()
            with StandStill(made) as still:
                await WAYS[way](made, number)
            seconds = monotonic() - begin
            taken.append(Taken(still.longest, seconds, used(made.spec.directory) - before))
    return taken


async def measure_ours(image: Image, accelerator: str, scratch: Path, size: int) -> list[Taken]:
    """Take our checkpoints: the first one is complete, later ones have what changed."""
    taken: list[Taken] = []
    machine = busy_machine(image, accelerator, scratch, size, shared=False)
    async with machine as (session, made):
        for number in range(1, TIMES + 2):
            await let_run(2)
            stored = await make_checkpoint(session, made, number)
            taken.append(Taken(stored.gap, stored.seconds, stored.checkpoint.written))
    return taken


def row(way: str, size: int, taken: list[Taken]) -> str:
    """Format a table row of medians."""
    gap = median(one.gap for one in taken) * 1e3
    written = median(one.written for one in taken) / MIB
    seconds = median(one.seconds for one in taken)
    return f"| {way} | {size} | {gap:.0f} ms | {written:.3g} MiB | {seconds:.2f} s |"


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint_ways")
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="MIB")
    sizes = parser.parse_args().sizes
    print("| way | memory, MiB | stands still | written | takes |\n|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(prefix="boincvm-bench-") as scratch,
        ImageStore().open("sci") as image,
    ):
        accelerator = asyncio.run(probe(image.kernel)).accelerator
        for size in sizes:
            for way in WAYS:
                try:
                    taken = asyncio.run(measure(image, accelerator, Path(scratch), size, way))
                except HypervisorError as error:
                    print(f"| {way} | {size} | does not work here: {error.message} | | |")
                else:
                    print(row(way, size, taken), flush=True)
            first, *later = asyncio.run(measure_ours(image, accelerator, Path(scratch), size))
            print(row("ours, the first one", size, [first]))
            print(row("ours, later ones", size, later), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
