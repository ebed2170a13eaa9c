"""Pipes that are read and written beside the event loop."""

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Iterator

import pytest

from boincvm.host.descriptor_streams import DescriptorReader, DescriptorWriter
from boincvm.host.readable_sockets import ReadableSocket

assert sys.platform == "win32"

LIMIT = 30.0


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    ends = list(os.pipe())
    yield ends
    for end in ends:
        if end >= 0:
            os.close(end)


def no_failure(error: OSError) -> None:
    raise error


async def test_a_full_pipe_blocks_nobody(pipe: list[int]) -> None:
    data = os.urandom(1 << 20)
    counts: list[int] = []
    writer = DescriptorWriter(pipe[1], counts.append, no_failure)
    for at in range(0, len(data), 100_000):
        writer.write(data[at : at + 100_000])
    await asyncio.sleep(0)
    assert sum(counts) < len(data)
    read = bytearray()
    async with asyncio.timeout(LIMIT):
        while len(read) < len(data):
            read += await asyncio.to_thread(os.read, pipe[0], 1 << 16)
        await writer.flush()
    assert read == data
    assert sum(counts) == len(data)


async def test_a_reader_that_has_gone(pipe: list[int]) -> None:
    failures: list[OSError] = []
    writer = DescriptorWriter(pipe[1], lambda _: None, failures.append)
    os.close(pipe[0])
    pipe[0] = -1
    writer.write(b"lost")
    async with asyncio.timeout(LIMIT):
        await writer.flush()
    assert [failure.errno for failure in failures] == [errno.EPIPE]


async def test_what_comes_is_read_up_to_the_end(pipe: list[int]) -> None:
    found: list[bytes] = []
    over = asyncio.Event()

    def handle() -> None:
        found.append(reader.read(4))
        if not found[-1]:
            reader.stop()
            over.set()

    reader = DescriptorReader(pipe[0], handle)
    with pytest.raises(BlockingIOError):
        reader.read(4)
    assert reader.start(10)
    os.write(pipe[1], b"abcdefgh\r\n\x1a")
    os.close(pipe[1])
    pipe[1] = -1
    async with asyncio.timeout(LIMIT):
        await over.wait()
    assert b"".join(found) == b"abcdefgh\r\n\x1a"
    assert max(map(len, found)) == 4


async def test_what_was_read_too_early_is_kept(pipe: list[int]) -> None:
    called = asyncio.Event()
    reader = DescriptorReader(pipe[0], called.set)
    reader.start(4)
    reader.stop()
    os.write(pipe[1], b"abcdef")
    reader.start(4)
    async with asyncio.timeout(LIMIT):
        await called.wait()
    reader.stop()
    assert reader.read(100) == b"abcd"


async def test_a_socket_is_readable_until_it_is_read() -> None:
    ours, its = socket.socketpair()
    found: list[bytes] = []
    over = asyncio.Event()

    def handle() -> None:
        found.append(ours.recv(2))
        if not found[-1]:
            readable.close()
            over.set()

    with ours, its:
        readable = ReadableSocket(ours, handle)
        its.sendall(b"abcd")
        its.close()
        async with asyncio.timeout(LIMIT):
            await over.wait()
    assert found == [b"ab", b"cd", b""]
