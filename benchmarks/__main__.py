"""`python -m benchmarks [NAME ...]`: runs the benchmarks, prints a table, writes bench.json.

Ends with 0 whatever the times are, and with 1 only where a benchmark could not be run.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from benchmarks import report
from benchmarks.registry import BENCHMARKS
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.errors import BoincvmError
from boincvm.host.inherited import reset_inherited_state
from boincvm.hypervisor.qemu.acceleration import probe
from boincvm.image.store import ImageStore


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    names = [name for benchmark in BENCHMARKS for name in benchmark.names]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(names)}")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a chart, as SVG")
    parser.add_argument("--repeat", type=_positive, metavar="N", help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, smaller files")
    parsed = parser.parse_args(argv)
    unknown = sorted(set(parsed.names) - set(names))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(names)}")
    return parsed


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _log(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


def _measure(benchmark: Benchmark, laboratory: Laboratory) -> list[Result] | None:
    """Run a benchmark; return None and report the error if it could not be run."""
    _log(", ".join(benchmark.names))
    begin = monotonic()
    try:
        results = benchmark.run(laboratory)
    except Exception:  # the others are still worth running
        traceback.print_exc()
        _log(f"{benchmark.names[0]} could not be run")
        return None
    _log(f"{benchmark.names[0]} done in {monotonic() - begin:.0f} s")
    return results


def _run(arguments: argparse.Namespace) -> int:
    wanted = [
        benchmark
        for benchmark in BENCHMARKS
        if set(arguments.names) & set(benchmark.names) or not (arguments.names or benchmark.by_name)
    ]
    results: list[Result] = []
    failures = 0
    store = ImageStore()
    with (
        tempfile.TemporaryDirectory(prefix="boincvm-bench-") as directory,
        store.open("base") as base,
        store.open("sci") as sci,
    ):
        verdict = asyncio.run(probe(base.kernel))
        _log(f"acceleration: {verdict.accelerator} ({verdict.reason})")
        laboratory = Laboratory(
            base, sci, verdict.accelerator, arguments.repeat, arguments.quick, Path(directory), _log
        )
        for benchmark in wanted:
            measured = _measure(benchmark, laboratory)
            failures += measured is None
            results += measured or []
    print(report.table(results))
    arguments.json.write_text(report.as_json(results))
    if arguments.plot is not None:
        arguments.plot.write_text(report.as_svg(results))
    return 1 if failures else 0


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what `argv` asks for; return the exit code."""
    reset_inherited_state()  # measured processes start as from a terminal
    signal.signal(signal.SIGTERM, _end)  # so that machines and directories are removed
    try:
        return _run(_arguments(sys.argv[1:] if argv is None else argv))
    except BoincvmError as error:
        _log(f"{error.message}; {error.hint}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
