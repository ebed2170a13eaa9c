"""put_file, get_file: a file to the guest and back, in seconds, against a directory shared by 9p.

Ours: put_tree and get_tree of a booted machine, as `boincvm run` uses them: from the host's file to
the guest's disk and from there to a file of the host. 9p is the best way that needs no root
(shared_directory.py); `put_virtiofs` and `get_virtiofs` compare virtiofs with the same 9p, if this
host has its daemon and we are root. `put_frames` and `get_frames` are ours without the transfer
disk, all by frames over the port, against a bare pump that moves as many bytes over the
virtio-serial port without files: they show why the transfer disk exists.

After each transfer the SHA-256 is compared: the guest's own on the way in, the host's on the way
out.
"""

import asyncio
import hashlib
import os
import tempfile
from pathlib import Path, PurePosixPath
from statistics import median
from time import perf_counter

from benchmarks.booted import booted, start_program
from benchmarks.pump import pump_seconds
from benchmarks.results import Benchmark, Laboratory, Result
from benchmarks.shared_directory import (
    NINE_P,
    VIRTIOFS,
    SharingKernel,
    share_seconds,
    sharing_kernel,
    virtiofs_daemon,
)
from boincvm.guestlink.get import get_tree
from boincvm.guestlink.put import put_tree
from boincvm.guestlink.transfer_disk import TransferDisk
from boincvm.machine.session import Session

SIZE, QUICK_SIZE = 256 << 20, 64 << 20
LIMIT = 300.0
"""Seconds that one transfer may take before the benchmark gives up."""


class TransferError(Exception):
    """The received bytes differ from those sent."""


async def _guest_digest(session: Session, name: str) -> str:
    output: list[bytes] = []
    program = start_program(session, ["sha256sum", name], lambda _, data: output.append(data))
    async with asyncio.timeout(LIMIT):
        await program.wait()
    return b"".join(output).split()[0].decode()


async def _put_and_get(
    session: Session, transfer_disk: TransferDisk | None, name: str, directory: Path, digest: str
) -> tuple[float, float]:
    link, there = session.link, PurePosixPath(name)
    async with asyncio.timeout(LIMIT):
        begin = perf_counter()
        await put_tree(link, transfer_disk, Path("source"), there, directory=directory)
        put = perf_counter() - begin
    found = await _guest_digest(session, name)
    async with asyncio.timeout(LIMIT):
        begin = perf_counter()
        await get_tree(
            link,
            transfer_disk,
            there,
            PurePosixPath("back"),
            directory=directory,
            maximum_bytes=1 << 40,
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
    """Measure seconds for put and get by the transfer disk, then by frames."""
    async with booted(laboratory.base, laboratory.accelerator, laboratory.directory) as session:

        async def both() -> list[tuple[float, float]]:
            return [
                await _put_and_get(session, transfer_disk, name, laboratory.directory, digest)
                for transfer_disk, name in ((session.transfer_disk, "by-disk"), (None, "by-frames"))
            ]

        return await session.guard(both())


def _transfer(laboratory: Laboratory) -> list[Result]:
    size = QUICK_SIZE if laboratory.quick else SIZE
    source = laboratory.directory / "source"
    with source.open("wb") as stream:
        for _ in range(size >> 20):
            stream.write(os.urandom(1 << 20))
    digest = _digest(source)
    system = sharing_kernel(laboratory.base, laboratory.directory)
    kinds = [NINE_P] if virtiofs_daemon() is None else [NINE_P, VIRTIOFS]
    rounds: list[dict[str, tuple[float, float]]] = []
    times = laboratory.times(3, 1)
    for turn in range(times):
        laboratory.log(f"{turn + 1} of {times}")
        pump = pump_seconds(laboratory.base, laboratory.accelerator, laboratory.directory, size)
        disk, frames = asyncio.run(_ours(laboratory, digest))
        shared = {kind: _shared(laboratory, system, kind, digest) for kind in kinds}
        rounds.append({"pump": pump, "file": disk, "frames": frames, **shared})
    source.unlink()
    return list(_results(rounds))


def _shared(
    laboratory: Laboratory, system: SharingKernel, kind: str, digest: str
) -> tuple[float, float]:
    """Measure seconds for put and get by a shared directory."""
    with tempfile.TemporaryDirectory(prefix="share-", dir=laboratory.directory) as name:
        share = Path(name)
        (share / "source").hardlink_to(laboratory.directory / "source")
        seconds = share_seconds(
            laboratory.base, laboratory.accelerator, laboratory.directory, system, kind, share
        )
        if _digest(share / "back") != digest:
            raise TransferError(f"what came back by {kind} is not what was sent")
    return seconds


def _results(rounds: list[dict[str, tuple[float, float]]]) -> list[Result]:
    results = []
    for way, name in enumerate(("put", "get")):
        seconds = {kind: median(one[kind][way] for one in rounds) for kind in rounds[0]}
        best, pump = seconds[NINE_P], seconds["pump"]
        results.append(Result(f"{name}_file", seconds["file"], "s", best, "9p", 0.5))
        if VIRTIOFS in seconds:
            results.append(Result(f"{name}_virtiofs", seconds[VIRTIOFS], "s", best, "9p"))
        results.append(Result(f"{name}_frames", seconds["frames"], "s", pump, "bare byte pump"))
    return results


BENCHMARK = Benchmark(
    tuple(f"{way}_{what}" for way in ("put", "get") for what in ("file", "virtiofs", "frames")),
    _transfer,
)
