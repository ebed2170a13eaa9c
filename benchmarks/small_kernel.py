"""cold_start_small: `boincvm run -- true` with our own kernel against Debian's, in seconds.

Both as whole processes, alternately, from a boot. The image with our kernel is built where it is
missing, and so is the kernel, which takes minutes.
"""

from benchmarks.bare_machine import LIMIT
from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.interleave import interleaved_medians
from benchmarks.results import Benchmark, Laboratory, Result
from benchmarks.whole_process import seconds_of
from boincvm.image.build import build_image
from boincvm.image.kernels.build import build_kernel
from boincvm.image.kernels.store import SMALL
from boincvm.image.progress import to_standard_error
from boincvm.machine.build_machine import booted

IMAGE = "bench-small"


def _cold_start_small(laboratory: Laboratory) -> list[Result]:
    progress = to_standard_error()
    build_kernel(SMALL, if_missing=True, progress=progress)
    build_image(IMAGE, kernel=SMALL, if_missing=True, boot=booted, progress=progress)
    environment = {**clean_environment(), "BOINCVM_GOLDEN": "no"}

    def run_true(image: str) -> float:
        return seconds_of([BOINCVM, "run", "--image", image, "--", "true"], environment, LIMIT)

    def small() -> float:
        return run_true(IMAGE)

    def debian() -> float:
        return run_true(laboratory.base.name)

    small()
    debian()
    ours, theirs = interleaved_medians(small, debian, laboratory.times(9, 3), laboratory.log)
    return [Result("cold_start_small", ours, "s", theirs, "Debian's kernel", 0.5)]


BENCHMARK = Benchmark(("cold_start_small",), _cold_start_small)
