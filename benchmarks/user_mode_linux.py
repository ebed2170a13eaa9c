"""uml_start, uml_overhead, uml_syscalls, pause_resume_uml: our own User-mode Linux.

uml_start: `boincvm run --driver uml -- true` as a whole process, in seconds. uml_overhead: GMP-ECM
in a machine against the same program on the host, in seconds of the host's processor time; the
program is taken out of the image. uml_syscalls: Debian 12's C compiler in a machine against the
same on the host, which compiles twelve files, by the clock of each side, in seconds.
pause_resume_uml: a pause and a resume of a machine whose program computes, in ms. The kernel is
built where it is missing.
"""

import asyncio
import re
import resource
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.bare_machine import LIMIT
from benchmarks.booted import booted_by
from benchmarks.environment import BOINCVM, clean_environment
from benchmarks.guest_overhead import BOUND, NUMBER, QUICK_BOUND
from benchmarks.results import Benchmark, Laboratory, Result
from benchmarks.whole_process import seconds_of
from boincvm.guestlink.link import GuestLink
from boincvm.guestlink.program import GuestProgram
from boincvm.hypervisor.contract import Machine
from boincvm.hypervisor.registry import open_driver
from boincvm.image.kernels.build import build_kernel
from boincvm.image.kernels.store import UML
from boincvm.image.progress import to_standard_error
from boincvm.image.store import Image

SOURCES = Path(__file__).parents[1] / "guest/libboinc"
COMPILE = """\
turn=0
while [ $turn -le {times} ]; do # the first is not counted
    read begin rest </proc/uptime
    for file in *.c; do gcc-12 -O1 -c -o /dev/null "$file" || exit 1; done
    read end rest </proc/uptime
    echo $begin $end
    turn=$((turn + 1))
done
"""
COMPILER = (
    "/usr/lib/gcc/x86_64-linux-gnu/12/cc1",
    "/usr/bin/as",
    "/usr/bin/gcc-12",
    "/usr/lib/gcc/x86_64-linux-gnu/12/include",
    "/usr/include",
)
"""Debian 12's; the first two are ELF files whose libraries are needed."""
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_PROGRAM = (
    "usr/bin/ecm",
    "lib64/ld-linux-x86-64.so.2",
    *(f"{_LIBRARIES}/{name}" for name in ("libecm.so.1", "libgmp.so.10", "libm.so.6", "libc.so.6")),
)
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}


def _ready_kernel() -> None:
    build_kernel(UML, if_missing=True, progress=to_standard_error())


@asynccontextmanager
async def _machine(image: Image, scratch: Path) -> AsyncIterator[tuple[Machine, GuestLink]]:
    driver = await open_driver("uml", None)
    async with booted_by(driver, image, scratch, memory=512 << 20) as session:
        yield session.machine, session.link


async def _run(link: GuestLink, script: str, data: bytes = b"") -> bytes:
    output = bytearray()

    def take(_: str, part: bytes) -> None:
        output.extend(part)
        program.grant(len(part))

    program = GuestProgram(
        link, ("/bin/sh", "-c", script), directory="/work", environment=_ENVIRONMENT, output=take
    )
    program.feed(data)
    program.end_input()
    async with asyncio.timeout(LIMIT):
        end = await program.wait()
    if end.code != 0:
        raise RuntimeError(f"{script!r} in the guest ended with {end}: {bytes(output)!r}")
    return bytes(output)


def _uml_start(laboratory: Laboratory) -> list[Result]:
    _ready_kernel()
    times = []
    for turn in range(laboratory.times(15, 5) + 1):
        laboratory.log(f"{turn}")
        command = [BOINCVM, "run", "--driver", "uml", "--", "true"]
        times.append(seconds_of(command, clean_environment(), LIMIT))
    return [Result("uml_start", median(times[1:]), "s", 0.3, "the limit", 1.0)]


def _child_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def _overhead(laboratory: Laboratory, times: int) -> tuple[float, float]:
    bound = QUICK_BOUND if laboratory.quick else BOUND
    curve = ("-q", "-sigma", "1:42", "-c", "3", str(bound * 10))
    script = f"echo {NUMBER} | ecm {' '.join(curve)}"
    measured: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory(dir=laboratory.directory) as name:
        root = Path(name)
        async with _machine(laboratory.sci, root) as (machine, link):
            packed = await _run(link, f"tar -ch -C / {' '.join(_PROGRAM)}")
            (root / "ecm.tar").write_bytes(packed)
            with tarfile.open(root / "ecm.tar") as archive:
                archive.extractall(root, filter="data")
            program, loader = (root / path for path in _PROGRAM[:2])
            command = [str(loader), "--library-path", str(root / _LIBRARIES), str(program), *curve]
            for turn in range(times + 1):
                laboratory.log(f"{turn} of {times}")
                begin = machine.usage()
                await _run(link, script)
                end = machine.usage()
                before = _child_seconds()
                done = await asyncio.to_thread(
                    subprocess.run,
                    command,
                    input=NUMBER.encode(),
                    stdout=subprocess.DEVNULL,
                    check=False,
                )
                if done.returncode & 1:
                    raise RuntimeError(f"ecm on the host ended with {done.returncode}")
                if turn > 0 and begin is not None and end is not None:
                    measured[0].append(end.cpu_seconds - begin.cpu_seconds)
                    measured[1].append(_child_seconds() - before)
    return median(measured[0]), median(measured[1])


def _uml_overhead(laboratory: Laboratory) -> list[Result]:
    _ready_kernel()
    ours, theirs = asyncio.run(_overhead(laboratory, laboratory.times(7, 3)))
    return [Result("uml_overhead", ours, "s", theirs, "the host itself", 1.03)]


def _pack_compiler(archive: Path) -> None:
    """Pack the host's C compiler with all that it needs, except the linker."""
    listed = subprocess.run(["ldd", *COMPILER[:2]], check=True, capture_output=True, text=True)
    libraries = sorted(set(re.findall(r"/\S+\.so\S*", listed.stdout)))
    names = [path.lstrip("/") for path in (*libraries, *COMPILER)]
    subprocess.run(["tar", "-chf", archive, "-C", "/", *names], check=True)


def _uml_syscalls(laboratory: Laboratory) -> list[Result]:
    _ready_kernel()
    times = laboratory.times(5, 2)
    with tempfile.TemporaryDirectory(dir=laboratory.directory) as name:
        directory = Path(name)
        _pack_compiler(directory / "cc.tar")
        shutil.copytree(SOURCES, directory / "sources")
        (directory / "compile").write_text(COMPILE.format(times=times))
        script = "tar -xf cc.tar -C / && cd sources && sh ../compile"
        inputs = [f"--input={directory / name}" for name in ("cc.tar", "sources", "compile")]
        run = [BOINCVM, "run", "--driver", "uml", "--memory", "1G", *inputs, "--", "sh"]
        guest = _seconds_told([*run, "-c", script], directory)
        host = _seconds_told(["sh", "../compile"], directory / "sources")
    return [Result("uml_syscalls", guest, "s", host, "the host itself", 2.0)]


def _seconds_told(command: list[str], directory: Path) -> float:
    """Return the median of the times that COMPILE has printed."""
    done = subprocess.run(
        command, cwd=directory, env=clean_environment(), stdout=subprocess.PIPE, check=True
    )
    pairs = [line.split() for line in done.stdout.decode().splitlines()]
    return median(float(end) - float(begin) for begin, end in pairs[1:])


async def _pairs(laboratory: Laboratory, times: int) -> float:
    pairs = []
    async with _machine(laboratory.base, laboratory.directory) as (machine, link):
        computes = asyncio.Event()
        GuestProgram(
            link,
            ("/bin/sh", "-c", "echo begun; while :; do :; done"),
            directory="/work",
            environment=_ENVIRONMENT,
            output=lambda _stream, _data: computes.set(),
        )
        await computes.wait()
        for _ in range(times):
            begin = perf_counter()
            await machine.pause()
            await machine.resume()
            pairs.append(perf_counter() - begin)
            await asyncio.sleep(0.02)  # the program computes again
    return median(pairs) * 1000


def _pause_resume(laboratory: Laboratory) -> list[Result]:
    _ready_kernel()
    pair = asyncio.run(_pairs(laboratory, laboratory.times(100, 20)))
    return [Result("pause_resume_uml", pair, "ms", 20.0, "the limit", 1.0)]


def _benchmark(name: str, run: Callable[[Laboratory], list[Result]]) -> Benchmark:
    return Benchmark((name,), run)


START = _benchmark("uml_start", _uml_start)
OVERHEAD = _benchmark("uml_overhead", _uml_overhead)
SYSCALLS = _benchmark("uml_syscalls", _uml_syscalls)
PAUSE = _benchmark("pause_resume_uml", _pause_resume)
