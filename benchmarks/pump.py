"""A bare byte pump over the virtio-serial port of a machine without our software.

These loops were the fastest of those tried. Host to guest: dd with 128 KiB blocks (against 4 KiB, 1
MiB, head, Python). Guest to host: Python writing one buffer of 32 KiB, the most that the driver
takes at once (against dd, cat, head, sendfile).
"""

import asyncio
import socket
from pathlib import Path
from time import perf_counter

from benchmarks.bare_machine import bare_machine
from boincvm.image.store import Image

CHUNK = 1 << 18
_GUEST_CHUNK = 1 << 15

_SOURCE = f"""
import os
def pump(count):
    data = bytes({_GUEST_CHUNK})
    write = os.write
    for _ in range(count):
        write(3, data)
pump(%d)
"""
_ECHO = """
import os
def echo():
    read, write = os.read, os.write
    while data := read(3, 1):
        write(3, data)
echo()
"""
_OPEN_PORT = "set -- /dev/vport*p1; exec 3<>$1"


def _python(source: str) -> str:
    """Make a shell command of Python source.

    The source is in hexadecimal, which needs no quoting for the kernel or the shell.
    """
    start = "python3 -SIc 'import sys; exec(bytes.fromhex(sys.argv[1]).decode())'"
    return f"{start} {source.encode().hex()}"


def pump_seconds(image: Image, accelerator: str, scratch: Path, size: int) -> tuple[float, float]:
    """Return the seconds for `size` bytes (a multiple of CHUNK) to the guest, and from it."""
    sink = f"dd bs=128k iflag=count_bytes,fullblock count={size} of=/dev/null <&3 2>/dev/null"
    source = _python(_SOURCE % (size // _GUEST_CHUNK))
    shell = f"{_OPEN_PORT}; echo >&3; {sink}; echo >&3; read line <&3; {source}; read line <&3"

    async def measure() -> tuple[float, float]:
        async with bare_machine(image, accelerator, shell, scratch) as machine:
            return await asyncio.to_thread(_pump, machine.port, size)

    return asyncio.run(measure())


def _pump(port: socket.socket, size: int) -> tuple[float, float]:
    port.recv(1)  # the guest's shell is ready
    data = bytes(CHUNK)
    begin = perf_counter()
    for _ in range(size // CHUNK):
        port.sendall(data)
    port.recv(1)
    to_guest = perf_counter() - begin
    port.sendall(b"\n")
    buffer = bytearray(CHUNK)
    left = size - _receive(port, buffer)  # the guest's Python has started
    begin = perf_counter()
    while left > 0:
        left -= _receive(port, buffer)
    return to_guest, perf_counter() - begin


def _receive(port: socket.socket, buffer: bytearray) -> int:
    count = port.recv_into(buffer)
    if count == 0:
        raise EOFError("the bare machine ended in the middle of the pump")
    return count


def echo_seconds(image: Image, accelerator: str, scratch: Path, count: int) -> list[float]:
    """Return the times of `count` round trips of one byte, the first ones left out."""
    shell = f"{_OPEN_PORT}; {_python(_ECHO)}"

    async def measure() -> list[float]:
        async with bare_machine(image, accelerator, shell, scratch) as machine:
            machine.port.sendall(b".")  # waits in the port until the guest opens it
            await asyncio.to_thread(_echo, machine.port, 20)
            return await asyncio.to_thread(_echo, machine.port, count)

    return asyncio.run(measure())


def _echo(port: socket.socket, count: int) -> list[float]:
    times = []
    for _ in range(count):
        port.recv(1)
        begin = perf_counter()
        port.sendall(b".")
        port.recv(1, socket.MSG_PEEK)
        times.append(perf_counter() - begin)
    return times
