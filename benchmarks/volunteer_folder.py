"""bundle_linux, bundle_windows, bundle_start: the folder for volunteers.

The first two: MB of the archive that `boincvm bundle` makes. bundle_start: `boincvm-wrapper
--version` of the folder, which checks itself first, against the installed one, in ms from fork to
exit.
"""

import tempfile
from pathlib import Path

from benchmarks.environment import PYTHON, clean_environment
from benchmarks.interleave import interleaved_medians
from benchmarks.results import Benchmark, Laboratory, Result
from benchmarks.whole_process import seconds_of
from boincvm.image.progress import Progress
from boincvm.project.bundle.build import build_folder, export_bundle

LINUX = "x86_64-pc-linux-gnu"
PLATFORMS = {"bundle_linux": LINUX, "bundle_windows": "windows_x86_64"}
PAGES = Path(__file__).parents[1] / "docs"
LIMIT = 60.0
"""Seconds that a process may take before the benchmark gives up."""
LARGEST = 12.0
"""MB."""


def _size(laboratory: Laboratory) -> list[Result]:
    quiet = Progress(None)
    results = []
    for name, platform in PLATFORMS.items():
        laboratory.log(f"making the folder for {platform}")
        folder = build_folder(platform, PAGES, None, quiet)
        with tempfile.TemporaryDirectory() as temporary:
            bundle = export_bundle(platform, folder, Path(temporary) / "boincvm", quiet)
        results.append(Result(name, bundle.packed_size / 1e6, "MB", LARGEST, "allowed", 1.0))
    return results


def _start(laboratory: Laboratory) -> list[Result]:
    folder = build_folder(LINUX, PAGES, None, Progress(None))
    environment = clean_environment()
    installed = str(Path(PYTHON).parent / "boincvm-wrapper")

    def start(program: str) -> float:
        return seconds_of([program, "--version"], environment, LIMIT)

    start(installed)  # compiles
    ours, theirs = interleaved_medians(
        lambda: start(str(folder / "boincvm-wrapper")),
        lambda: start(installed),
        laboratory.times(31, 7),
        laboratory.log,
    )
    return [Result("bundle_start", ours * 1000, "ms", theirs * 1000, "the installed one", 1.3)]


SIZE = Benchmark(tuple(PLATFORMS), _size)
START = Benchmark(("bundle_start",), _start)
