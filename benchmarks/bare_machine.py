"""The same QEMU, kernel, initrd and root with nothing of ours: a shell in the agent's place.

No QMP, no agent, no transfer disk. The command is the first program after the init script.
"""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from boincvm.host.processes import ChildProcess
from boincvm.host.programs import run_quickly
from boincvm.hypervisor.qemu import command as qemu_command
from boincvm.image.store import Image

MEMORY = 512 << 20
"""Bytes; what `boincvm run` gives a machine unless told otherwise."""
LIMIT = 180.0
"""Seconds that a bare machine may take for anything before the benchmark gives up."""
POWER_OFF = "echo b > /proc/sysrq-trigger"


@dataclass(frozen=True, slots=True)
class GuestSystem:
    """What a bare machine boots in place of the image's kernel, and QEMU's options for devices
    that it has besides."""

    kernel: Path
    initrd: Path
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BareMachine:
    """`port` and `console`: the host's ends of the virtio-serial port and of the serial line,
    blocking, with LIMIT as their timeout. `begin`: when QEMU was started, by perf_counter."""

    begin: float
    process: ChildProcess
    port: socket.socket
    console: socket.socket

    async def wait(self) -> None:
        """Until it has powered off."""
        async with asyncio.timeout(LIMIT):
            await self.process.wait()


def make_overlay(image: Image, directory: Path) -> Path:
    """An overlay of the image's root, to boot from once."""
    path = directory / "bare.qcow2"
    make = ["create", "-q", "-f", "qcow2", "-b", str(image.root), "-F", "qcow2", str(path)]
    run_quickly([qemu_command.find_program("qemu-img"), *make])
    return path


def bare_command(
    image: Image,
    accelerator: str,
    overlay: Path,
    shell: str,
    *,
    port: int,
    console: int,
    system: GuestSystem | None = None,
) -> list[str]:
    """Return QEMU's command line; `shell` has no double quote in it."""
    system = system or GuestSystem(image.kernel, image.initrd)
    arguments = [*qemu_command.KERNEL_ARGUMENTS, f'boincvm.shell="{shell}"']
    return [
        qemu_command.find_program(qemu_command.PROGRAM),
        *qemu_command.base_options(accelerator),
        "-m", f"{MEMORY >> 20}M",
        "-smp", "1",
        "-kernel", str(system.kernel),
        "-initrd", str(system.initrd),
        "-append", " ".join(arguments),
        "-drive", f"if=none,id=root,file={overlay},format=qcow2,discard=unmap,cache=unsafe",
        "-device", "virtio-blk-pci,drive=root",
        "-chardev", f"socket,id=link,fd={port}",
        "-device", "virtio-serial-pci",
        "-device", "virtserialport,chardev=link,name=bare",
        "-chardev", f"socket,id=console,fd={console}",
        "-serial", "chardev:console",
        *system.devices,
    ]  # fmt: skip


@asynccontextmanager
async def bare_machine(
    image: Image, accelerator: str, shell: str, scratch: Path, system: GuestSystem | None = None
) -> AsyncIterator[BareMachine]:
    """A machine that has just been started, on an overlay made beforehand; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bare-", dir=scratch) as name:
        directory = Path(name)
        overlay = make_overlay(image, directory)
        port, port_far = socket.socketpair()
        console, console_far = socket.socketpair()
        with port, console:
            with port_far, console_far:
                ends = (port_far.fileno(), console_far.fileno())
                command = bare_command(
                    image,
                    accelerator,
                    overlay,
                    shell,
                    port=ends[0],
                    console=ends[1],
                    system=system,
                )
                begin = perf_counter()
                process = ChildProcess(command, directory=directory, descriptors=ends)
            port.settimeout(LIMIT)
            console.settimeout(LIMIT)
            try:
                yield BareMachine(begin, process, port, console)
            finally:
                process.kill()
                await process.wait()


def bare_boot_seconds(image: Image, accelerator: str, scratch: Path) -> float:
    """From QEMU's start to its end; the shell powers off at once."""

    async def boot() -> float:
        machine = bare_machine(image, accelerator, POWER_OFF, scratch)
        async with machine as booting:
            await booting.wait()
            return perf_counter() - booting.begin

    return asyncio.run(boot())
