"""qemu_linux, qemu_windows, own_qemu_boot, own_qemu_compute: QEMU that comes with an app version.

The first two: MB of the archive that `boincvm bundle --qemu` makes. The others compare its QEMU for
Linux with the host's, without our software in either: the time from the start of QEMU until its
guest has booted and powered off, in s; and the processor time of a curve of GMP-ECM in two machines
that compute by turns, in s: other work on the host changes the time of the clock by more than the
2 % in question.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from benchmarks.bare_machine import GuestSystem, bare_boot_seconds, bare_machine
from benchmarks.guest_overhead import (
    BOUND,
    QUICK_BOUND,
    ecm_in_bare,
    ecm_script,
    shell_for,
    wait_for_shell,
)
from benchmarks.interleave import interleaved_medians
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.host.process_tree import own_usage
from boincvm.hypervisor.qemu.command import PROGRAM
from boincvm.image.progress import Progress
from boincvm.image.store import Image
from boincvm.project.bundle.build import build_qemu, export_qemu

LINUX = "x86_64-pc-linux-gnu"
PLATFORMS = {"qemu_linux": (LINUX, 12.0), "qemu_windows": ("windows_x86_64", 45.0)}
"""BOINC's name of each, and the largest size allowed, in MB."""
SAME = 1.02


def _size(laboratory: Laboratory) -> list[Result]:
    quiet = Progress(None)
    results = []
    for name, (platform, largest) in PLATFORMS.items():
        laboratory.log(f"making and packing the folder with QEMU for {platform}")
        folder = build_qemu(platform, None, quiet)
        with tempfile.TemporaryDirectory() as temporary:
            bundle = export_qemu(folder, Path(temporary) / "qemu", quiet)
        results.append(Result(name, bundle.packed_size / 1e6, "MB", largest, "allowed", 1.0))
    return results


def _own(image: Image) -> GuestSystem:
    folder = build_qemu(LINUX, None, Progress(None))
    qemu = (str(folder / PROGRAM), "-L", str(folder / "share/qemu"))
    return GuestSystem(image.kernel, image.initrd, qemu=qemu)


def _boot(laboratory: Laboratory) -> list[Result]:
    image = laboratory.base
    own, of_host = _own(image), GuestSystem(image.kernel, image.initrd)

    def boot(system: GuestSystem) -> float:
        return bare_boot_seconds(image, laboratory.accelerator, laboratory.directory, system)

    boot(own)
    boot(of_host)
    ours, theirs = interleaved_medians(
        lambda: boot(own), lambda: boot(of_host), laboratory.times(15, 3), laboratory.log
    )
    return [Result("own_qemu_boot", ours, "s", theirs, "the host's QEMU", SAME)]


async def _by_turns(laboratory: Laboratory, script: str, times: int) -> tuple[float, float]:
    """Return the medians of ours and of theirs, in seconds of processor time."""
    image = laboratory.sci
    measured: tuple[list[float], list[float]] = ([], [])
    async with AsyncExitStack() as stack:
        machines = [
            await stack.enter_async_context(
                bare_machine(
                    image, laboratory.accelerator, shell_for(script), laboratory.directory, system
                )
            )
            for system in (_own(image), GuestSystem(image.kernel, image.initrd))
        ]
        for machine in machines:
            await asyncio.to_thread(wait_for_shell, machine.console)
        for turn in range(times + 1):
            laboratory.log(f"{turn} of {times}")
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                machine = machines[side]
                before, _ = own_usage(machine.process.pid)
                await asyncio.to_thread(ecm_in_bare, machine.console)
                if turn > 0:  # the first run of each reads its program from the disk
                    measured[side].append(own_usage(machine.process.pid)[0] - before)
    return median(measured[0]), median(measured[1])


def _compute(laboratory: Laboratory) -> list[Result]:
    script = ecm_script(QUICK_BOUND if laboratory.quick else BOUND)
    ours, theirs = asyncio.run(_by_turns(laboratory, script, laboratory.times(15, 3)))
    return [Result("own_qemu_compute", ours, "s", theirs, "the host's QEMU", SAME)]


SIZE = Benchmark(tuple(PLATFORMS), _size)
BOOT = Benchmark(("own_qemu_boot",), _boot)
COMPUTE = Benchmark(("own_qemu_compute",), _compute)
