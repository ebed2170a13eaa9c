"""The server of a disk that QEMU reads on demand: QEMU's own programs, and clients that are odd."""

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from boincvm.hypervisor.qemu.block_server import LARGEST_READ, ProtocolError, serve_blocks
from support.partial_images import served_node
from support.versions import noise

DISK = noise("a disk", (3 << 20) + 512)
FLAGS = 1 | 2 | 256
READ, WRITE, DISCONNECT, FLUSH, TRIM, CACHE, WRITE_ZEROES = range(7)
GO, INFO, LIST, ABORT, EXPORT_NAME, STRUCTURED = 7, 6, 3, 2, 1, 8
ACK, SERVER, INFORMATION = 1, 2, 3
UNSUPPORTED, INVALID, UNKNOWN = (1 << 31) + 1, (1 << 31) + 3, (1 << 31) + 6
LIMIT = 60.0


class Disk:
    """A source that answers at once, or when it is told to."""

    size = len(DISK)

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.waiting = 0
        self.all_wait = asyncio.Event()
        self.expected = 0
        self.error: OSError | None = None
        self.cut = 0

    async def read(self, offset: int, length: int) -> bytes:
        self.waiting += 1
        if self.waiting == self.expected:
            self.all_wait.set()
        try:
            await self.may_answer.wait()
        finally:
            self.waiting -= 1
        if self.error is not None:
            raise self.error
        return DISK[offset : offset + length - self.cut]


class Client:
    """A client that sends what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def greet(self, flags: int = 3) -> None:
        assert await self.reader.readexactly(18) == b"NBDMAGICIHAVEOPT\0\3"
        self.writer.write(struct.pack(">I", flags))

    async def option(self, number: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        """Send an option; return the replies to the last one."""
        self.writer.write(struct.pack(">8sII", b"IHAVEOPT", number, len(data)) + data)
        replies = []
        while True:
            head = await self.reader.readexactly(20)
            magic, echoed, kind, length = struct.unpack(">QIII", head)
            assert (magic, echoed) == (0x3E889045565A9, number)
            replies.append((kind, await self.reader.readexactly(length)))
            if kind not in (SERVER, INFORMATION):
                return replies

    async def begin(self) -> None:
        await self.greet()
        assert (await self.option(GO, name(b"root")))[-1] == (ACK, b"")

    def ask(self, kind: int, offset: int, length: int, handle: int = 7, flags: int = 0) -> None:
        request = struct.pack(">IHHQQI", 0x25609513, flags, kind, handle, offset, length)
        self.writer.write(request)

    async def reply(self) -> tuple[int, int]:
        """Return the error and the handle."""
        magic, code, handle = struct.unpack(">IIQ", await self.reader.readexactly(16))
        assert magic == 0x67446698
        return code, handle

    async def is_cut_off(self) -> bool:
        return await self.reader.read(1) == b""


def name(text: bytes, *wanted: int) -> bytes:
    numbers = b"".join(struct.pack(">H", one) for one in wanted)
    return struct.pack(">I", len(text)) + text + struct.pack(">H", len(wanted)) + numbers


@asynccontextmanager
async def connected(disk: Disk) -> AsyncIterator[tuple[Client, "asyncio.Future[None]"]]:
    ours, its = socket.socketpair()
    server = asyncio.ensure_future(serve_blocks(ours, disk))
    reader, writer = await asyncio.open_connection(sock=its)
    try:
        async with asyncio.timeout(LIMIT):
            yield Client(reader, writer), server
    finally:
        writer.close()
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)


async def run_with(disk: Disk, *command: str) -> tuple[int, str]:
    """Run a program that is given the disk as its last argument; return its code and output."""
    ours, its = socket.socketpair()
    server = asyncio.ensure_future(serve_blocks(ours, disk))
    try:
        words = [*command[:-1], command[-1].replace("DISK", served_node(its))]
        process = await asyncio.create_subprocess_exec(
            *words,
            pass_fds=[its.fileno()],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        its.close()
        async with asyncio.timeout(LIMIT):
            output, _ = await process.communicate()
            await server
    finally:
        its.close()
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
    return process.returncode or 0, output.decode()


async def test_qemu_reads_all_of_it(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    ours, its = socket.socketpair()
    server = asyncio.ensure_future(serve_blocks(ours, Disk()))
    process = await asyncio.create_subprocess_exec(
        "qemu-img", "convert", "-O", "raw", served_node(its), target, pass_fds=[its.fileno()]
    )
    its.close()
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == 0
        await server
    assert target.read_bytes() == DISK


async def test_qemu_cannot_write_to_it() -> None:
    code, output = await run_with(Disk(), "qemu-io", "-c", "write 0 512", "DISK")
    assert code != 0, output
    assert "ermi" in output or "read-only" in output.lower() or "Block node" in output


async def test_qemu_is_told_of_an_error() -> None:
    disk = Disk()
    disk.error = OSError(errno.ENOSPC, "what QEMU does not hear")
    code, output = await run_with(disk, "qemu-io", "-r", "-c", "read 0 512", "DISK")
    assert "Input/output error" in output, (code, output)


async def test_reads_wait_side_by_side() -> None:
    disk = Disk()
    disk.may_answer.clear()
    disk.expected = 10
    async with connected(disk) as (client, _):
        await client.begin()
        for handle in range(10):
            client.ask(READ, handle * 4096, 4096, handle)
        await disk.all_wait.wait()
        disk.may_answer.set()
        found = {}
        for _ in range(10):
            code, handle = await client.reply()
            assert code == 0
            found[handle] = await client.reader.readexactly(4096)
        assert found == {n: DISK[n * 4096 :][:4096] for n in range(10)}


async def test_no_more_reads_wait_than_there_is_memory_for() -> None:
    disk = Disk()
    disk.may_answer.clear()
    disk.expected = 16
    async with connected(disk) as (client, _):
        await client.begin()
        for handle in range(30):
            client.ask(READ, 0, LARGEST_READ, handle)
        await disk.all_wait.wait()
        assert disk.waiting == 16
        disk.may_answer.set()
        for _ in range(30):
            code, _ = await client.reply()
            assert code == 0
            await client.reader.readexactly(LARGEST_READ)


async def test_nobody_waits_for_a_client_that_has_gone() -> None:
    disk = Disk()
    disk.may_answer.clear()
    disk.expected = 1
    async with connected(disk) as (client, server):
        await client.begin()
        client.ask(READ, 0, 4096)
        await disk.all_wait.wait()
        client.writer.close()
        await server
    assert disk.waiting == 0


@pytest.mark.parametrize(
    ("kind", "offset", "length", "flags", "code"),
    [
        (READ, len(DISK) - 511, 512, 0, errno.EINVAL),
        (READ, (1 << 64) - 1, 512, 0, errno.EINVAL),
        (READ, 0, 0, 0, errno.EINVAL),
        (READ, 0, LARGEST_READ + 1, 0, errno.EINVAL),
        (READ, 0, 512, 1, errno.EINVAL),
        (FLUSH, 0, 0, 0, errno.EINVAL),
        (CACHE, 0, 512, 0, errno.EINVAL),
        (99, 0, 512, 0, errno.EINVAL),
        (TRIM, 0, 512, 0, errno.EPERM),
        (WRITE_ZEROES, 0, 512, 0, errno.EPERM),
    ],
)
async def test_what_cannot_be_done_is_an_error(
    kind: int, offset: int, length: int, flags: int, code: int
) -> None:
    async with connected(Disk()) as (client, server):
        await client.begin()
        client.ask(kind, offset, length, 5, flags)
        assert await client.reply() == (code, 5)
        client.ask(READ, len(DISK) - 512, 512, 6)
        assert await client.reply() == (0, 6)
        assert await client.reader.readexactly(512) == DISK[-512:]
        client.ask(DISCONNECT, 0, 0)
        assert await client.is_cut_off()
        await server


async def test_a_write_is_read_over() -> None:
    async with connected(Disk()) as (client, _):
        await client.begin()
        client.ask(WRITE, 0, 4096)
        client.writer.write(bytes(4096))
        assert await client.reply() == (errno.EPERM, 7)


@pytest.mark.parametrize("cut", [1, -1])
async def test_a_source_that_has_another_length(cut: int) -> None:
    disk = Disk()
    disk.cut = cut
    async with connected(disk) as (client, _):
        await client.begin()
        client.ask(READ, 0, 4096)
        assert await client.reply() == (errno.EIO, 7)


async def test_options() -> None:
    async with connected(Disk()) as (client, _):
        await client.greet()
        assert await client.option(LIST) == [(SERVER, b"\0\0\0\4root"), (ACK, b"")]
        assert await client.option(LIST, b"x") == [(INVALID, b"")]
        assert await client.option(STRUCTURED) == [(UNSUPPORTED, b"")]
        assert await client.option(INFO, name(b"other")) == [(UNKNOWN, b"")]
        for data in (b"", b"\0\0\0\4roo", name(b"root") + b"x", b"\xff\xff\xff\xff\0\0"):
            assert await client.option(GO, data) == [(INVALID, b"")]
        size = struct.pack(">HQH", 0, len(DISK), FLAGS)
        sizes = struct.pack(">HIII", 3, 1, 4096, LARGEST_READ)
        known = [(INFORMATION, size), (INFORMATION, sizes), (ACK, b"")]
        assert await client.option(INFO, name(b"root", 3)) == known
        assert await client.option(GO, name(b"")) == known
        client.ask(READ, 0, 512)
        assert await client.reply() == (0, 7)


async def test_a_client_that_wants_nothing() -> None:
    async with connected(Disk()) as (client, server):
        await client.greet()
        assert await client.option(ABORT) == [(ACK, b"")]
        assert await client.is_cut_off()
        await server


@pytest.mark.parametrize(("flags", "zeros"), [(3, 0), (1, 124)])
async def test_the_oldest_way_to_begin(flags: int, zeros: int) -> None:
    async with connected(Disk()) as (client, _):
        await client.greet(flags)
        client.writer.write(struct.pack(">8sII", b"IHAVEOPT", EXPORT_NAME, 4) + b"root")
        begin = await client.reader.readexactly(10 + zeros)
        assert begin == struct.pack(">QH", len(DISK), FLAGS) + bytes(zeros)
        client.ask(READ, 0, 512)
        assert await client.reply() == (0, 7)


async def test_another_name_in_the_oldest_way() -> None:
    async with connected(Disk()) as (client, server):
        await client.greet()
        client.writer.write(struct.pack(">8sII", b"IHAVEOPT", EXPORT_NAME, 1) + b"x")
        assert await client.is_cut_off()
        await server


async def _odd_flags(client: Client) -> None:
    await client.greet(4)


async def _no_fixed_newstyle(client: Client) -> None:
    await client.greet(0)


async def _odd_option(client: Client) -> None:
    await client.greet()
    client.writer.write(struct.pack(">8sII", b"IHAVEOPX", GO, 0))


async def _large_option(client: Client) -> None:
    await client.greet()
    client.writer.write(struct.pack(">8sII", b"IHAVEOPT", GO, 1 << 20))


async def _endless_options(client: Client) -> None:
    await client.greet()
    for _ in range(64):
        await client.option(STRUCTURED)


async def _odd_request(client: Client) -> None:
    await client.begin()
    client.writer.write(bytes(28))


async def _large_write(client: Client) -> None:
    await client.begin()
    client.ask(WRITE, 0, LARGEST_READ + 1)


@pytest.mark.parametrize(
    "behave",
    [
        _odd_flags,
        _no_fixed_newstyle,
        _odd_option,
        _large_option,
        _endless_options,
        _odd_request,
        _large_write,
    ],
)
async def test_who_breaks_the_protocol_is_cut_off(
    behave: Callable[[Client], Awaitable[None]],
) -> None:
    async with connected(Disk()) as (client, server):
        await behave(client)
        assert await client.is_cut_off()
        with pytest.raises(ProtocolError):
            await server


@pytest.mark.parametrize("length", [0, 3, 10, 30])
async def test_a_client_that_goes_in_the_middle(length: int) -> None:
    sent = struct.pack(">I", 3) + struct.pack(">8sII", b"IHAVEOPT", GO, 10) + name(b"root")
    async with connected(Disk()) as (client, server):
        client.writer.write(sent[:length])
        client.writer.close()
        await server
