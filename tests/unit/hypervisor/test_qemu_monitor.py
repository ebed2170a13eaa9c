"""The start of the monitor's protocol, with a QEMU that sends many events, or dies."""

import asyncio
import gc
import json
import socket

import pytest

from boincvm.errors import HypervisorError
from boincvm.hypervisor.qemu.monitor import Monitor

LIMIT = 10.0
TURNS = 50
"""Turns of the event loop in which a connection that is closed comes to its end."""
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


async def test_qemu_is_killed_when_its_start_is_given_up() -> None:
    loop = asyncio.get_running_loop()
    complaints: list[object] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    local, remote = socket.socketpair()
    remote.sendall(json.dumps(GREETING).encode() + b"\n")
    asked = asyncio.Event()
    loop.add_reader(remote, asked.set)
    async with asyncio.timeout(LIMIT):
        opening = asyncio.ensure_future(Monitor.open(local))
        await asked.wait()
        loop.remove_reader(remote)
        opening.cancel()
        await asyncio.wait((opening,))
        assert opening.cancelled()
    remote.close()  # with the command unread, so that the connection is reset
    del opening
    for _ in range(TURNS):
        await asyncio.sleep(0)
    assert local.fileno() == -1
    gc.collect()  # asyncio complains then of an error that nobody has taken
    assert complaints == []
