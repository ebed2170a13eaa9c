"""The start of the monitor's protocol, with a QEMU that sends many events, or dies."""

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
    """Send an event before each answer; hang up after a number of them. Record the commands."""
    reader, writer = await asyncio.open_connection(sock=channel)
    writer.write(json.dumps(GREETING).encode() + b"\n")
    received = []
    while len(received) <= answers and (text := await reader.read(1 << 16)):
        command = json.loads(text)
        received.append(command["execute"])
        if len(received) <= answers:
            answer = {"return": {"running": True}, "id": command["id"]}
            writer.write(f"{json.dumps(EVENT)}\n{json.dumps(answer)}\n".encode())
            await writer.drain()
    writer.close()
    await writer.wait_closed()
    return received


async def test_events_before_the_first_answer() -> None:
    local, remote = socket.socketpair()
    server = asyncio.ensure_future(qemu(remote, answers=2))
    async with asyncio.timeout(LIMIT):
        monitor = await Monitor.open(local)
        assert await monitor.execute("query-status") == {"running": True}
        await monitor.close()
        assert await server == ["qmp_capabilities", "query-status"]


async def test_qemu_ends_before_its_first_answer() -> None:
    local, remote = socket.socketpair()
    server = asyncio.ensure_future(qemu(remote, answers=0))
    async with asyncio.timeout(LIMIT):
        with pytest.raises(HypervisorError):
            await Monitor.open(local)
        assert await server == ["qmp_capabilities"]
    assert local.fileno() == -1


async def test_qemu_ends_before_its_greeting() -> None:
    local, remote = socket.socketpair()
    remote.close()
    async with asyncio.timeout(LIMIT):
        with pytest.raises(HypervisorError):
            await Monitor.open(local)
    assert local.fileno() == -1


async def test_qemu_ends_with_its_greeting() -> None:
    local, remote = socket.socketpair()
    remote.sendall(json.dumps(GREETING).encode() + b"\n")
    remote.close()
    async with asyncio.timeout(LIMIT):
        with pytest.raises(HypervisorError):
            await Monitor.open(local)
    assert local.fileno() == -1
