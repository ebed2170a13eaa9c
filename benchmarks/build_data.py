"""build_data, build_data_again: building the recipe `data`, in seconds.

Some 500 packages (R, NumPy, SciPy, Java), configured in a machine; from package files that were
downloaded before, into an empty store. Then the same once more with --if-missing and nothing
changed, as a whole process.
"""

import subprocess
import tempfile
from pathlib import Path
from time import monotonic

from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.results import Benchmark, Laboratory, Result

LIMIT, AGAIN_LIMIT = 240.0, 5.0
"""Seconds."""
_ENOUGH = 3600.0
"""Seconds after which the benchmark gives up."""


def _build_data(laboratory: Laboratory) -> list[Result]:
    with tempfile.TemporaryDirectory(dir=laboratory.directory) as name:
        environment = {**clean_environment(), "XDG_DATA_HOME": name}
        recipe = str(Path(name) / "recipe")
        _run(["image", "recipe", "data", recipe], environment)
        laboratory.log("building once, so that all packages are there")
        _run(["image", "build", recipe], environment)
        _run(["image", "rm", "data"], environment)
        seconds = _run(["image", "build", recipe], environment)
        again = _run(["image", "build", "--if-missing", recipe], environment)
    return [
        Result("build_data", seconds, "s", LIMIT, "a limit", 1.0),
        Result("build_data_again", again, "s", AGAIN_LIMIT, "a limit", 1.0),
    ]


def _run(arguments: list[str], environment: dict[str, str]) -> float:
    begin = monotonic()
    subprocess.run(
        [BOINCVM, *arguments], env=environment, check=True, timeout=_ENOUGH, capture_output=True
    )
    return monotonic() - begin


BENCHMARK = Benchmark(("build_data", "build_data_again"), _build_data, by_name=True)
