"""The monitor's first words, with a QEMU that has much to tell, or dies."""

import asyncio
import json
import socket

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.qemu.monitor import Monitor

LIMIT = 10.0
GREETING = {"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}
EVENT = {"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}}


async def qemu(channel: socket.socket, *, answers: int) -> list[str]:
    """Says an event before each answer; hangs up after so many. The commands that it heard."""
    reader, writer = await asyncio.open_connection(sock=channel)
    writer.write(json.dumps(GREETING).encode() + b"\n")
    heard = []
    while len(heard) <= answers and (text := await reader.read(1 << 16)):
        command = json.loads(text)
        heard.append(command["execute"])
        if len(heard) <= answers:
            answer = {"return": {"running": True}, "id": command["id"]}
            writer.write(f"{json.dumps(EVENT)}\n{json.dumps(answer)}\n".encode())
            await writer.drain()
    writer.close()
    await writer.wait_closed()
    return heard


async def test_events_before_the_first_answer() -> None:
    near, far = socket.socketpair()
    server = asyncio.ensure_future(qemu(far, answers=2))
    async with asyncio.timeout(LIMIT):
        monitor = await Monitor.open(near)
        assert await monitor.execute("query-status") == {"running": True}
        await monitor.close()
        assert await server == ["qmp_capabilities", "query-status"]


async def test_qemu_ends_before_its_first_answer() -> None:
    near, far = socket.socketpair()
    server = asyncio.ensure_future(qemu(far, answers=0))
    async with asyncio.timeout(LIMIT):
        with pytest.raises(HypervisorError):
            await Monitor.open(near)
        assert await server == ["qmp_capabilities"]
    assert near.fileno() == -1


async def test_qemu_ends_before_its_greeting() -> None:
    near, far = socket.socketpair()
    far.close()
    async with asyncio.timeout(LIMIT):
        with pytest.raises(HypervisorError):
            await Monitor.open(near)
    assert near.fileno() == -1


async def test_qemu_ends_with_its_greeting() -> None:
    near, far = socket.socketpair()
    far.sendall(json.dumps(GREETING).encode() + b"\n")
    far.close()
    async with asyncio.timeout(LIMIT):
        with pytest.raises(HypervisorError):
            await Monitor.open(near)
    assert near.fileno() == -1
