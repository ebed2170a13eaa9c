"""put_file, get_file: a file to the guest and back, in seconds, against a bare byte pump.

Ours: put_tree and get_tree of a booted machine, as `boincvm run` uses them: from the host's
file to the guest's disk and from there to a file of the host. The pump moves as many bytes
over the virtio-serial port, from no file and to none. `put_frames` and `get_frames` are the
same without the transfer disk, all by frames over the port: why there is the disk.

After each way in the guest's own SHA-256 is compared, after each way out the host's.
"""

import asyncio
import hashlib
import os
from pathlib import Path, PurePosixPath
from statistics import median
from time import perf_counter

from benchmarks.booted import booted, start_program
from benchmarks.pump import pump_seconds
from benchmarks.results import Benchmark, Laboratory, Result
from boincvm.guestlink.get import get_tree
from boincvm.guestlink.put import put_tree
from boincvm.guestlink.transfer_disk import TransferWindow
from boincvm.machine.session import Session

SIZE, QUICK_SIZE = 256 << 20, 64 << 20
LIMIT = 300.0
"""Seconds that one transfer may take before the benchmark gives up."""


class TransferError(Exception):
    """What arrived is not what was sent."""


async def _guest_digest(session: Session, name: str) -> str:
    output: list[bytes] = []
    program = start_program(session, ["sha256sum", name], lambda _, data: output.append(data))
    async with asyncio.timeout(LIMIT):
        await program.wait()
    return b"".join(output).split()[0].decode()


async def _put_and_get(
    session: Session, window: TransferWindow | None, name: str, directory: Path, digest: str
) -> tuple[float, float]:
    link, there = session.link, PurePosixPath(name)
    async with asyncio.timeout(LIMIT):
        begin = perf_counter()
        await put_tree(link, window, Path("source"), there, directory=directory)
        put = perf_counter() - begin
    found = await _guest_digest(session, name)
    async with asyncio.timeout(LIMIT):
        begin = perf_counter()
        await get_tree(
            link, window, there, PurePosixPath("back"), directory=directory, maximum_bytes=1 << 40
        )
        get = perf_counter() - begin
    back = directory / "back"
    if not digest == found == _digest(back):
        raise TransferError("what arrived is not what was sent")
    back.unlink()
    return put, get


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


async def _ours(laboratory: Laboratory, digest: str) -> list[tuple[float, float]]:
    """By the transfer disk, then by frames: seconds for put and get."""
    async with booted(laboratory.base, laboratory.accelerator, laboratory.directory) as session:

        async def both() -> list[tuple[float, float]]:
            return [
                await _put_and_get(session, window, name, laboratory.directory, digest)
                for window, name in ((session.window, "by-disk"), (None, "by-frames"))
            ]

        return await session.guard(both())


def _transfer(laboratory: Laboratory) -> list[Result]:
    size = QUICK_SIZE if laboratory.quick else SIZE
    source = laboratory.directory / "source"
    with source.open("wb") as stream:
        for _ in range(size >> 20):
            stream.write(os.urandom(1 << 20))
    digest = _digest(source)
    rounds: list[list[tuple[float, float]]] = []
    times = laboratory.times(3, 1)
    for turn in range(times):
        laboratory.say(f"{turn + 1} of {times}")
        pump = pump_seconds(laboratory.base, laboratory.accelerator, laboratory.directory, size)
        rounds.append([pump, *asyncio.run(_ours(laboratory, digest))])
    source.unlink()
    return list(_results(rounds))


def _results(rounds: list[list[tuple[float, float]]]) -> list[Result]:
    results = []
    for way, name in enumerate(("put", "get")):
        pump, disk, frames = (median(one[side][way] for one in rounds) for side in range(3))
        results.append(Result(f"{name}_file", disk, "s", pump, "bare byte pump", 1.5))
        results.append(Result(f"{name}_frames", frames, "s", pump, "bare byte pump"))
    return results


BENCHMARK = Benchmark(("put_file", "put_frames", "get_file", "get_frames"), _transfer)
