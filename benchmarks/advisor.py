"""doctor, doctor_cached: how long the advisor takes to choose a driver, in ms.

In a process of its own, from the first import of the advisor to the choice: with nothing known
(every driver is tried, KVM by booting a kernel), and with what that has left in the cache. Without
the start of Python, which the caller has paid for.
"""

import statistics
import subprocess
import tempfile
from pathlib import Path

from benchmarks.environment import PYTHON, clean_environment
from benchmarks.results import Benchmark, Laboratory, Result

COLD, CACHED = 4000.0, 50.0
"""The limits in ms."""
_LIMIT = 60.0
_ASK = """
import sys
from pathlib import Path
from time import perf_counter
begin = perf_counter()
from boincvm.hypervisor.choice import choose
from boincvm.hypervisor.needs import Needs
from boincvm.job.model import NO_REQUEST
kernel = Path(sys.argv[1])
choose(Needs(), NO_REQUEST, lambda: kernel)
print(perf_counter() - begin)
"""


def _milliseconds(kernel: Path, cache: str) -> float:
    done = subprocess.run(
        [PYTHON, "-c", _ASK, str(kernel)],
        env={**clean_environment(), "XDG_CACHE_HOME": cache},
        capture_output=True,
        text=True,
        timeout=_LIMIT,
        check=True,
    )
    return float(done.stdout) * 1000


def _doctor(laboratory: Laboratory) -> list[Result]:
    cold: list[float] = []
    cached: list[float] = []
    kernel = laboratory.base.kernel
    for turn in range(laboratory.times(7, 3)):
        with tempfile.TemporaryDirectory(dir=laboratory.directory) as cache:
            cold.append(_milliseconds(kernel, cache))
            cached += [_milliseconds(kernel, cache) for _ in range(3)]
        laboratory.log(f"{turn + 1}: {cold[-1]:.0f} ms, then {cached[-1]:.1f} ms")
    return [
        Result("doctor", statistics.median(cold), "ms", COLD, "limit", 1.0),
        Result("doctor_cached", statistics.median(cached), "ms", CACHED, "limit", 1.0),
    ]


BENCHMARK = Benchmark(("doctor", "doctor_cached"), _doctor)
