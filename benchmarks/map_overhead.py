"""map_overhead: a sweep of ten inputs by `boincvm map` against the same by xargs, in seconds.

Both run two machines at a time, which start as copies of one golden snapshot; each input's program
reads its own input file, computes, and writes a result, which is copied back.
"""

import asyncio
import tempfile
from pathlib import Path

from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.golden_start import make_snapshot
from benchmarks.interleave import interleaved_medians
from benchmarks.results import Benchmark, Laboratory, Result
from benchmarks.whole_process import seconds_of

INPUTS = 10
LIMIT = 300.0
_SHAPE = ("--memory", "256M")
_SCRIPT = 'i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; cat "$1" >out; echo $i >>out'


def _command(name: str) -> list[str]:
    return ["sh", "-c", _SCRIPT, "sh", name]


def _sweep(directory: Path, argv: list[str]) -> float:
    """Run `argv` in a new directory beneath `directory` that has the inputs; return the seconds."""
    location = Path(tempfile.mkdtemp(dir=directory))
    for number in range(INPUTS):
        (location / f"in{number}").write_text(f"{number}\n")
    seconds = seconds_of(["env", "-C", str(location), *argv], clean_environment(), LIMIT)
    results = sorted([*location.glob("results/*/out"), *location.glob("out*")])
    if len(results) != INPUTS:
        raise RuntimeError(f"{len(results)} results of {INPUTS} have come back")
    return seconds


def _by_map(directory: Path) -> float:
    files = ("--input", "{}", "--output", "out")
    inputs = [f"in{number}" for number in range(INPUTS)]
    run = [BOINCVM, "map", "-j2", "--quiet", *_SHAPE, *files, "--", *_command("{}"), ":::", *inputs]
    return _sweep(directory, run)


def _by_xargs(directory: Path) -> float:
    # Each run is in a directory of its own, so that results do not meet.
    files = "--input {} --output out"
    script = (
        f"ls in* | xargs -P2 -I{{}} sh -c 'mkdir d{{}} && cd d{{}} && mv ../{{}} . &&"
        f' "$@" && mv out ../out{{}}\' sh {BOINCVM} run -n {" ".join(_SHAPE)} {files} --'
        f' sh -c "$0" sh {{}}'
    )
    return _sweep(directory, ["sh", "-c", script, _SCRIPT])


def _map_overhead(laboratory: Laboratory) -> list[Result]:
    asyncio.run(make_snapshot(laboratory))
    directory = laboratory.directory
    ours, theirs = interleaved_medians(
        lambda: _by_map(directory),
        lambda: _by_xargs(directory),
        laboratory.times(5, 2),
        laboratory.log,
    )
    return [Result("map_overhead", ours, "s", theirs, "xargs -P2 boincvm run", 1.2)]


BENCHMARK = Benchmark(("map_overhead",), _map_overhead)
