"""The same QEMU, kernel, initrd and root without our software: a shell in the agent's place.

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
from boincvm.hypervisor.qemu.target import X86_64
from boincvm.image.store import Image

MEMORY = 512 << 20
"""Bytes; what `boincvm run` gives a machine unless told otherwise."""
LIMIT = 180.0
"""Seconds that any step of a bare machine may take before the benchmark gives up."""
POWER_OFF = "echo b > /proc/sysrq-trigger"


@dataclass(frozen=True, slots=True)
class GuestSystem:
    """A kernel to boot in place of the image's, or QEMU in place of the host's."""

    kernel: Path
    initrd: Path
    devices: tuple[str, ...] = ()
    """QEMU's options for additional devices."""
    qemu: tuple[str, ...] = ()
    """A program and its first options; if there are none, the host's."""


@dataclass(frozen=True, slots=True)
class BareMachine:
    """A running machine and the host's ends of its connections."""

    begin: float
    """When QEMU was started, by perf_counter."""
    process: ChildProcess
    port: socket.socket
    """The virtio-serial port; blocks for LIMIT at most."""
    console: socket.socket
    """The serial line; blocks for LIMIT at most."""

    async def wait(self) -> None:
        """Wait until it has powered off."""
        async with asyncio.timeout(LIMIT):
            await self.process.wait()


def make_overlay(image: Image, directory: Path) -> Path:
    """Make an overlay of the image's root for a single boot."""
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
    """Return QEMU's command line; `shell` must not contain double quotes."""
    system = system or GuestSystem(image.kernel, image.initrd)
    has_hpet = X86_64.has_hpet(accelerator, cpus=1)
    arguments = [*X86_64.arguments(has_hpet=has_hpet), f'boincvm.shell="{shell}"']
    options = X86_64.machine_options(has_hpet=has_hpet)
    return [
        *(system.qemu or (qemu_command.find_program(qemu_command.PROGRAM),)),
        *qemu_command.base_options(accelerator, options=options),
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
    """Start a machine on an overlay made beforehand; it ends with the block."""
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


def bare_boot_seconds(
    image: Image, accelerator: str, scratch: Path, system: GuestSystem | None = None
) -> float:
    """Measure the time from QEMU's start to its end, with a shell that powers off immediately."""

    async def boot() -> float:
        machine = bare_machine(image, accelerator, POWER_OFF, scratch, system)
        async with machine as booting:
            await booting.wait()
            return perf_counter() - booting.begin

    return asyncio.run(boot())
