"""cli_start, wrapper_start: how long our processes take to start, in ms.

Whole processes of the same interpreter, from fork to exit, bytecode compiled beforehand: `boincvm
--version`, and a process that imports all that the wrapper needs for a run (also what it imports
late, without the garbage collector, as it does), each against `python3 -c pass`.
"""

from benchmarks.environment import BOINCVM, PYTHON, clean_environment
from benchmarks.interleave import interleaved_medians
from benchmarks.results import Benchmark, Laboratory, Result
from benchmarks.whole_process import seconds_of

LIMIT = 60.0
"""Seconds that a process may take before the benchmark gives up."""

_IMPORTS = """
from boincvm.gc_freeze import defer_collection, freeze_imports
defer_collection()
import boincvm.runner.run, boincvm.runner.loop, boincvm.image.store
freeze_imports()
"""


def _compare(name: str, argv: list[str], target: float, laboratory: Laboratory) -> list[Result]:
    environment = clean_environment()

    def start(command: list[str]) -> float:
        return seconds_of(command, environment, LIMIT)

    nothing = [PYTHON, "-c", "pass"]
    start(argv)  # compiles
    start(nothing)
    ours, theirs = interleaved_medians(
        lambda: start(argv), lambda: start(nothing), laboratory.times(31, 7), laboratory.log
    )
    return [Result(name, ours * 1000, "ms", theirs * 1000, "python3 -c pass", target)]


def _cli_start(laboratory: Laboratory) -> list[Result]:
    return _compare("cli_start", [BOINCVM, "--version"], 4.0, laboratory)


def _wrapper_start(laboratory: Laboratory) -> list[Result]:
    return _compare("wrapper_start", [PYTHON, "-c", _IMPORTS], 7.0, laboratory)


CLI = Benchmark(("cli_start",), _cli_start)
WRAPPER = Benchmark(("wrapper_start",), _wrapper_start)
