"""cold_start: `boincvm run -- true` against a bare boot, in seconds.

Ours: the whole process, from fork to exit: Python, the image's stamp, the overlay, QEMU, boot,
agent, program, end. Cached facts (the acceleration to use, the image's digest) are cached already.
Bare: QEMU with the same machine, kernel, initrd and root; its first program after the init script
powers off. Its overlay is made before the clock starts.
"""

from benchmarks.bare_machine import LIMIT, bare_boot_seconds
from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.interleave import interleaved_medians
from benchmarks.results import Benchmark, Laboratory, Result
from benchmarks.whole_process import seconds_of


def run_true() -> float:
    """Measure `boincvm run -- true`, in seconds."""
    environment = {**clean_environment(), "BOINCVM_GOLDEN": "no"}
    return seconds_of([BOINCVM, "run", "--", "true"], environment, LIMIT)


def _cold_start(laboratory: Laboratory) -> list[Result]:
    def bare() -> float:
        return bare_boot_seconds(laboratory.base, laboratory.accelerator, laboratory.directory)

    run_true()
    bare()
    ours, theirs = interleaved_medians(run_true, bare, laboratory.times(7, 3), laboratory.log)
    return [Result("cold_start", ours, "s", theirs, "bare QEMU boot", 1.3)]


BENCHMARK = Benchmark(("cold_start",), _cold_start)
