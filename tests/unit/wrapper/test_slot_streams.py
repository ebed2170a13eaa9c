"""Streams of a machine's task that are not files: nothing else waits for them."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from boincvm.errors import BoincvmError, InputFileError, OutputFileError
from boincvm.job.model import MachineTask
from boincvm.machine.streams import StdinFeed
from boincvm.wrapper.slot.streams import open_streams
from support.odd_nodes import make_node

pytestmark = pytest.mark.timeout(60)

LIMIT = 20.0


def task(**streams: Path) -> MachineTask:
    return MachineTask(("true",))._replace(**streams)  # type: ignore[arg-type]


def fail(error: BoincvmError) -> None:
    raise error


def taken(_: int) -> None:
    pass


async def test_an_output_that_is_read_later(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out")

    async def use() -> None:
        async with open_streams(task(stdout=tmp_path / "out"), taken, fail, sizes={}) as streams:
            streams.write("stdout", b"x" * (1 << 20))  # more than a FIFO holds
            await streams.flush()

    using = asyncio.create_task(use())
    done, _ = await asyncio.wait((using,), timeout=0.1)
    assert not done  # it waits, and we do not
    async with asyncio.timeout(LIMIT):
        assert await asyncio.to_thread((tmp_path / "out").read_bytes) == b"x" * (1 << 20)
        await using


async def test_who_gives_up_leaves_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out")
    descriptors, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    streams = open_streams(task(stdout=tmp_path / "out"), taken, fail, sizes={})
    waiting = asyncio.ensure_future(streams.__aenter__())
    await asyncio.wait((waiting,), timeout=0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(LIMIT):
        # Its thread ends, and then the loop hears of it.
        while threading.active_count() > threads:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.002)
        while not descriptors >= set(os.listdir("/proc/self/fd")):  # noqa: ASYNC110 - nor this
            await asyncio.sleep(0.002)


async def test_an_input_whose_writer_comes_later(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in")
    fed, ended = bytearray(), asyncio.Event()
    opened = task(stdin=tmp_path / "in")
    # One that goes on where it was saved reads on: what was read of a FIFO does not come again.
    async with open_streams(opened, taken, fail, stdin_offset=3, sizes={}) as streams:
        assert streams.stdin is not None
        source = StdinFeed(streams.stdin, fed.extend, ended.set, 1 << 20, fail)
        done, _ = await asyncio.wait((asyncio.create_task(ended.wait()),), timeout=0.1)
        assert not done  # nobody having written yet is no end
        async with asyncio.timeout(LIMIT):
            await asyncio.to_thread((tmp_path / "in").write_bytes, b"from a daemon")
            await ended.wait()
        source.close()
    assert fed == b"from a daemon"


@pytest.mark.parametrize("kind", ["directory", "socket", "loop"])
@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
async def test_what_is_no_stream(tmp_path: Path, stream: str, kind: str) -> None:
    make_node(tmp_path / "f", kind)
    descriptors = os.listdir("/proc/self/fd")
    error = InputFileError if stream == "stdin" else OutputFileError
    with pytest.raises(error, match=r"/f cannot be (read|written): "):
        async with open_streams(task(**{stream: tmp_path / "f"}), taken, fail, sizes={}):
            raise AssertionError
    assert os.listdir("/proc/self/fd") == descriptors
