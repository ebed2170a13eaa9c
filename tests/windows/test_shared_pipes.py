"""Streams between processes: pairs of sockets, given to a process that runs."""

import asyncio
import base64
import os
import socket
import sys
from pathlib import Path

import pytest

from boincvm.host.shared_pipes import SharedPipe, StreamHelper
from boincvm.host.shared_pipes_windows import open_given

assert sys.platform == "win32"

LIMIT = 30.0
HELPER = (
    f"import hashlib, os, sys; sys.path[:0] = {sys.path!r}\n"
    "from boincvm.host.shared_pipes import open_given\n"
    "stream, result = map(int, sys.argv[1:])\n"
    "with open_given(stream, 1 << 16) as source:\n"
    "    os.write(result, b'ready\\n')\n"
    "    os.write(result, hashlib.sha256(source.read()).hexdigest().encode() + b'\\n')\n"
)
WRITER = (
    "import base64, hashlib, socket, sys\n"
    "end = socket.fromshare(base64.b64decode(sys.stdin.readline()))\n"
    "end.sendall(bytes(1 << 20))\n"
    "print('sent', flush=True)\n"
    "sys.stdin.read()\n"  # it does not close its end
)
SENT = "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58"
"""The SHA-256 digest of a mebibyte of zeros."""


def command(stream: int, result: int) -> list[str]:
    return [sys.executable, "-c", HELPER, str(stream), str(result)]


async def test_another_process_writes_what_the_helper_reads(tmp_path: Path) -> None:
    helper = StreamHelper(command, tmp_path)
    try:
        async with asyncio.timeout(LIMIT):
            reports = await helper.connect(1 << 16)
            assert await reports.readline() == b"ready\n"
            writer = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", WRITER),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            assert writer.stdin is not None
            assert writer.stdout is not None
            shared = helper.stream.share(writer.pid)
            assert isinstance(shared, bytes)
            writer.stdin.write(base64.b64encode(shared) + b"\n")
            assert await writer.stdout.readline() == b"sent\r\n"
            helper.stream.close()  # which ends the stream, though the writer keeps its end
            assert await reports.readline() == SENT.encode() + b"\n"
            writer.stdin.close()
            await writer.wait()
            assert await reports.readline() == b""
    finally:
        await helper.close()


async def test_a_helper_is_killed_whatever_it_does(tmp_path: Path) -> None:
    helper = StreamHelper(command, tmp_path)
    async with asyncio.timeout(LIMIT):
        reports = await helper.connect(1 << 16)
        assert await reports.readline() == b"ready\n"
        await helper.close()
        assert await reports.read() == b""


def test_a_child_that_is_given_nothing() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with pytest.raises(OSError, match="no stream"):
        open_given(reader, 1 << 16)
    os.close(reader)


def test_what_is_written_arrives_before_the_end() -> None:
    pipe = SharedPipe()
    with pipe.writer.open_to_write(1 << 16) as target:
        target.write(b"content")
    shared = pipe.reader.share(os.getpid())
    assert isinstance(shared, bytes)
    pipe.writer.close()
    with socket.fromshare(shared) as reader:
        reader.settimeout(LIMIT)
        assert reader.recv(100) == b"content"
        assert reader.recv(100) == b""
    pipe.close()
    pipe.close()
