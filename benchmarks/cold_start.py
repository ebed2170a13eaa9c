"""cold_start: `boincvm run -- true` against a bare boot, in seconds.

Ours: the whole process, from fork to exit: Python, the image's stamp, the overlay, QEMU, boot,
agent, program, end. What is found once and kept (the acceleration's verdict, the image's
digest) has been found. Bare: QEMU with the same machine, kernel, initrd and root; its first
program after the init script powers off. Its overlay is made before the clock starts to run.
"""

import subprocess

from benchmarks.bare_machine import LIMIT, bare_boot_seconds
from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.interleave import interleaved_medians, timed
from benchmarks.results import Benchmark, Laboratory, Result


def run_true() -> None:
    """`boincvm run -- true`."""
    subprocess.run(
        [BOINCVM, "run", "--", "true"],
        check=True,
        env={**clean_environment(), "BOINCVM_GOLDEN": "no"},
        stdin=subprocess.DEVNULL,
        timeout=LIMIT,
    )


def _cold_start(laboratory: Laboratory) -> list[Result]:
    def bare() -> float:
        return bare_boot_seconds(laboratory.base, laboratory.accelerator, laboratory.directory)

    run_true()
    bare()
    ours, theirs = interleaved_medians(
        lambda: timed(run_true), bare, laboratory.times(7, 3), laboratory.say
    )
    return [Result("cold_start", ours, "s", theirs, "bare QEMU boot", 1.3)]


BENCHMARK = Benchmark(("cold_start",), _cold_start)
