"""Flow control of a serial line: no more is in transit than the guest can buffer."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from boincvm.hypervisor.serial_line import WINDOW, SerialChannel

LIMIT = 10.0
MUCH = 50_000


class Host(asyncio.Protocol):
    """The protocol that a link would be."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.paused: list[bool] = []
        self.lost = asyncio.Event()
        self.enough = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) >= MUCH:
            self.enough.set()

    def pause_writing(self) -> None:
        self.paused.append(True)

    def resume_writing(self) -> None:
        self.paused.append(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Guest:
    """Reads and writes the guest's ends of both lines."""

    def __init__(self, line: socket.socket, receipts: socket.socket) -> None:
        self.line, self.receipts = line, receipts

    async def read(self) -> bytes:
        async with asyncio.timeout(LIMIT):
            return await asyncio.get_running_loop().sock_recv(self.line, 1 << 20)

    def is_silent(self) -> bool:
        try:
            self.line.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    async def receipt(self, count: int, pieces: int = 1) -> None:
        data = count.to_bytes(2, "little")
        for at in range(0, 2, 2 // pieces):
            self.receipts.send(data[at : at + 2 // pieces])
            await turns()


async def turns() -> None:
    """Let the event loop do everything that is pending."""
    for _ in range(5):
        await asyncio.sleep(0)


class Lines:
    """Both lines, and the guest at their ends."""

    def __init__(self) -> None:
        (line, far_line), (receipts, far_receipts) = socket.socketpair(), socket.socketpair()
        for remote in (far_line, far_receipts):
            remote.setblocking(False)
        self.ours = (line, receipts)
        self.guest = Guest(far_line, far_receipts)

    def close(self) -> None:
        self.guest.line.close()
        self.guest.receipts.close()


@pytest.fixture
async def both() -> AsyncIterator[tuple[Host, Guest]]:
    lines = Lines()
    host = await SerialChannel(*lines.ours).connect(Host)
    yield host, lines.guest
    host.transport.abort()
    await turns()
    lines.close()


async def test_what_the_guest_says_passes(both: tuple[Host, Guest]) -> None:
    host, guest = both
    guest.line.send(b"x" * MUCH)
    async with asyncio.timeout(LIMIT):
        await host.enough.wait()
    assert host.received == b"x" * MUCH


@pytest.mark.parametrize("pieces", [1, 2])
async def test_the_guest_gets_what_it_has_room_for(both: tuple[Host, Guest], pieces: int) -> None:
    host, guest = both
    data = bytes(range(256)) * 20
    host.transport.write(data)
    got = b""
    while len(got) < len(data):
        part = await guest.read()
        assert len(part) <= WINDOW
        await turns()
        assert guest.is_silent()
        got += part
        await guest.receipt(len(part), pieces)
    assert got == data
    assert host.transport.get_write_buffer_size() == 0


async def test_receipts_for_more_than_was_sent_widen_nothing(both: tuple[Host, Guest]) -> None:
    host, guest = both
    await guest.receipt(0xFFFF)
    host.transport.write(bytes(3 * WINDOW))
    assert len(await guest.read()) == WINDOW


async def test_who_writes_too_much_is_told(both: tuple[Host, Guest]) -> None:
    host, guest = both
    host.transport.write(bytes(100_000))
    assert host.paused == [True]
    left = 100_000
    while left:
        left -= (count := len(await guest.read()))
        await guest.receipt(count)
    assert host.paused == [True, False]


@pytest.mark.parametrize("which", ["line", "receipts"])
async def test_the_end_of_either_line_is_that_of_the_link(
    both: tuple[Host, Guest], which: str
) -> None:
    host, guest = both
    getattr(guest, which).close()
    async with asyncio.timeout(LIMIT):
        await host.lost.wait()
    assert host.transport.is_closing()
    host.transport.write(b"late")  # harmless


async def test_other_lines_take_over() -> None:
    """The link does not notice: what is written meanwhile waits, and the old lines may end."""
    first, second, third = (Lines() for _ in range(3))
    channel = SerialChannel(*first.ours)
    host = await channel.connect(Host)
    host.transport.write(b"before")
    assert await first.guest.read() == b"before"  # and gives no receipt
    channel.hold()
    host.transport.write(bytes(WINDOW))
    await turns()
    assert first.guest.is_silent()
    first.close()
    await turns()
    assert not host.lost.is_set()
    await channel.replace(*second.ours)
    assert len(await second.guest.read()) == WINDOW
    second.guest.line.send(b"x" * MUCH)
    async with asyncio.timeout(LIMIT):
        await host.enough.wait()
    channel.hold()
    await channel.replace(*third.ours)  # although the old lines are still there
    await turns()
    assert not host.lost.is_set()
    second.close()
    third.close()
    async with asyncio.timeout(LIMIT):
        await host.lost.wait()


@pytest.mark.parametrize("ended", [False, True])
async def test_no_other_lines_take_over(*, ended: bool) -> None:
    """The link goes on over those that it has, or ends."""
    lines = Lines()
    channel = SerialChannel(*lines.ours)
    host = await channel.connect(Host)
    channel.hold()
    host.transport.write(b"waits")
    if ended:
        lines.close()
    await turns()
    channel.unhold()
    if ended:
        async with asyncio.timeout(LIMIT):
            await host.lost.wait()
    else:
        assert await lines.guest.read() == b"waits"
        assert not host.lost.is_set()
        host.transport.abort()
        await turns()
        lines.close()
