"""overlay_ready: until a machine's own disk over the image is there, in ms.

What `boincvm run` does for each machine: the image's disk is checked, and an empty layer over it
written, with the transfer disk. Against such a layer by qemu-img, as a process. Neither is synced.
"""

import shutil
import tempfile
from pathlib import Path
from time import perf_counter

from benchmarks.bare_machine import MEMORY, make_overlay
from benchmarks.interleave import interleaved_medians
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.hypervisor.machine_spec import MachineSpec
from boincvm.hypervisor.qemu.process import check_disks
from boincvm.hypervisor.qemu.start_source import Boot


def _overlay_ready(laboratory: Laboratory) -> list[Result]:
    image = laboratory.base

    def ours() -> float:
        directory = Path(tempfile.mkdtemp(dir=laboratory.directory))
        spec = MachineSpec(directory, image.kernel, image.initrd, image.root, MEMORY, cpus=1)
        begin = perf_counter()
        check_disks(spec, Boot().prepare(spec))
        seconds = perf_counter() - begin
        shutil.rmtree(directory)
        return seconds

    def theirs() -> float:
        directory = Path(tempfile.mkdtemp(dir=laboratory.directory))
        begin = perf_counter()
        make_overlay(image, directory)
        seconds = perf_counter() - begin
        shutil.rmtree(directory)
        return seconds

    ours()
    theirs()
    own, other = interleaved_medians(ours, theirs, laboratory.times(51, 11), laboratory.log)
    return [Result("overlay_ready", own * 1000, "ms", other * 1000, "qemu-img", 1.0)]


BENCHMARK = Benchmark(("overlay_ready",), _overlay_ready)
