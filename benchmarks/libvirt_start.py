"""libvirt_start: `boincvm run --driver libvirt -- true` against the same by QEMU directly.

Both are whole processes that boot; neither starts from a golden snapshot. The daemon is one of the
benchmark's own, and its first start, in which it tries out the host's QEMU, is not counted. Its
machines are reaped by a process of ours, as by process 1 of a usual host: libvirt's `destroy`
returns once QEMU has been reaped.
"""

from functools import partial

from benchmarks import libvirt_daemon
from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.interleave import interleaved_medians
from benchmarks.results import Benchmark, Laboratory, Result
from benchmarks.whole_process import seconds_of

_LIMIT = 180.0


def _libvirt_start(laboratory: Laboratory) -> list[Result]:
    with libvirt_daemon.running(partial(libvirt_daemon.start, has_reaper=True)) as daemon:
        environment = {
            **clean_environment(),
            "BOINCVM_GOLDEN": "no",
            "BOINCVM_LIBVIRT_URI": daemon.uri,
        }

        def run(driver: str) -> float:
            return seconds_of(
                [BOINCVM, "run", "--driver", driver, "--", "true"], environment, _LIMIT
            )

        run("libvirt")
        run("qemu")
        ours, direct = interleaved_medians(
            lambda: run("libvirt"), lambda: run("qemu"), laboratory.times(7, 3), laboratory.log
        )
    return [Result("libvirt_start", ours, "s", direct, "QEMU directly", 1.15)]


BENCHMARK = Benchmark(("libvirt_start",), _libvirt_start)
