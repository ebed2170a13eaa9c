"""Machines of plain QEMU: one process each, which is paused by SIGSTOP and ended by SIGKILL."""

import json
import os
import signal
import socket
from pathlib import Path

from boincvm.errors import HypervisorError
from boincvm.host.files import open_descriptor
from boincvm.host.process_tree import own_usage
from boincvm.host.processes import ChildProcess
from boincvm.hypervisor import qcow2
from boincvm.hypervisor.channel import Channel, SocketChannel
from boincvm.hypervisor.console import Console
from boincvm.hypervisor.contract import EndCause, MachineEnd, MachineSpec, MachineState, Usage
from boincvm.hypervisor.disks import disk_size

DISK = "disk.qcow2"
"""The machine's own disk, in its directory: what differs from the image."""
PORT = "boincvm.agent"
"""The virtio port that the guest's agent looks for."""
_RUNS = (MachineState.RUNNING, MachineState.PAUSED)
_KERNEL_ARGUMENTS = (
    *("quiet", "loglevel=1", "console=ttyS0", "panic=-1", "reboot=t"),
    "no_timer_check",  # on a busy host Linux would panic: "IO-APIC + timer doesn't work!"
)


class PlainDriver:
    """Makes machines on the QEMU in `program`."""

    name = "plainqemu"
    has_firmware = False
    most_cpus = None
    saved_machines = None
    golden_snapshots = None

    def __init__(self, program: str) -> None:
        self._program = program

    def machine(self, spec: MachineSpec) -> "PlainMachine":
        return PlainMachine(self._program, spec)


class PlainMachine:
    """A machine that is one QEMU process and one file."""

    checkpointing = None
    freezing = None
    balloon = None
    network = None
    display = None
    screenshots = None
    remote_desktop = None
    transfer_disk = None
    root_disk = None

    def __init__(self, program: str, spec: MachineSpec) -> None:
        self.spec = spec
        self.state = MachineState.DEFINED
        self._program = program
        self._disk = -1
        self._process: ChildProcess | None = None
        self._console: Console | None = None
        self._asked_to_end = False

    @property
    def disk_layers(self) -> tuple[str, ...]:
        return () if self.spec.ephemeral else (DISK,)

    def files_in_use(self) -> frozenset[str]:
        return frozenset(self.disk_layers)

    def process_ids(self) -> tuple[int, ...]:
        process = self._process
        return (process.pid,) if process is not None and process.is_running else ()

    def usage(self) -> Usage | None:
        ids = self.process_ids()
        return Usage(*own_usage(ids[0])) if ids else None

    async def create(self) -> None:
        if self.state is not MachineState.DEFINED:
            return
        path = self.spec.directory / DISK
        try:
            # Nothing is opened by QEMU that might name other files of the host.
            size = qcow2.check_root(self.spec.root, self.spec.root_format)
            if not self.spec.layers:
                qcow2.write_overlay(path, disk_size(self.spec, size))
            qcow2.check_disk(path)
            self._disk = open_descriptor(path, "r+", follow_links=False)
        except (OSError, qcow2.DiskRefusedError) as error:
            raise HypervisorError(f"the machine's disk cannot be made: {error}") from error
        if self.spec.ephemeral:
            path.unlink()
        self.state = MachineState.CREATED

    async def start(self) -> Channel:
        if self.state in _RUNS:
            raise HypervisorError("the machine is already running, and its link is taken")
        await self.create()
        if self._disk < 0:
            raise HypervisorError("the machine has ended, so it cannot start again")
        link, far_link = socket.socketpair()
        console, far_console = socket.socketpair()
        try:
            self._process = ChildProcess(
                self._command(far_link.fileno(), far_console.fileno()),
                directory=Path("/"),
                descriptors=(far_link.fileno(), far_console.fileno(), self._disk),
            )
        except BaseException:
            link.close()
            console.close()
            raise
        finally:
            far_link.close()
            far_console.close()
        self._console = Console(console)
        self.state = MachineState.RUNNING
        return SocketChannel(link)

    def _command(self, link: int, console: int) -> list[str]:
        spec = self.spec
        if spec.kernel is None or spec.initrd is None:
            raise HypervisorError("this driver has no firmware: it needs a kernel and an initrd")
        root: dict[str, object] = {
            "driver": spec.root_format,
            "node-name": "root",
            "read-only": True,
            "file": {"driver": "file", "filename": str(spec.root), "read-only": True},
        }
        if spec.root_format == "qcow2":
            root["backing"] = None
        own = {
            "driver": "file",
            "filename": "/dev/fdset/1",
            "cache": {"no-flush": not spec.durable},
        }
        disk = {"driver": "qcow2", "node-name": "disk", "file": own, "backing": "root"}
        return [
            self._program,
            "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
            "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
            "-machine", "q35,graphics=off,usb=off",
            "-accel", "tcg", "-cpu", "max,-erms,-fsrm",
            "-m", f"{spec.memory >> 20}M",
            "-smp", str(spec.cpus),
            "-kernel", str(spec.kernel),
            "-initrd", str(spec.initrd),
            "-append", " ".join((*_KERNEL_ARGUMENTS, *spec.own_arguments)),
            "-add-fd", f"fd={self._disk},set=1",
            "-blockdev", json.dumps(root),
            "-blockdev", json.dumps(disk),
            "-device", "virtio-blk-pci,drive=disk",
            "-chardev", f"socket,id=link,fd={link}",
            "-device", "virtio-serial-pci",
            "-device", f"virtserialport,chardev=link,name={PORT}",
            "-chardev", f"socket,id=console,fd={console}",
            "-serial", "chardev:console",
        ]  # fmt: skip

    def _running(self) -> ChildProcess:
        if self._process is None or self.state not in _RUNS:
            raise HypervisorError("the machine is not running")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        process = self._running()
        if process.is_running:
            os.kill(process.pid, number)

    async def pause(self) -> None:
        self._signal(signal.SIGSTOP)
        self.state = MachineState.PAUSED

    async def resume(self) -> None:
        self._signal(signal.SIGCONT)
        self.state = MachineState.RUNNING

    async def stop(self) -> None:
        if self._process is not None:
            self._asked_to_end = True
            self._process.kill()
            await self._process.wait()
        if self._console is not None:
            self._console.close()
        if self._disk >= 0:
            os.close(self._disk)
            self._disk = -1
        if self.state in _RUNS:
            self.state = MachineState.STOPPED

    async def destroy(self) -> None:
        await self.stop()
        (self.spec.directory / DISK).unlink(missing_ok=True)
        self.state = MachineState.DESTROYED

    async def ended(self) -> MachineEnd:
        process, console = self._process, self._console
        if process is None or console is None:
            raise HypervisorError("the machine was never started")
        status = await process.wait()
        if self._asked_to_end:
            return MachineEnd(EndCause.ASKED, "")
        if status < 0:
            return MachineEnd(EndCause.KILLED, f"signal {-status} ended QEMU")
        if status > 0:
            return MachineEnd(EndCause.FAILED, f"QEMU ended with {status}")
        panic = console.panic_line()
        return MachineEnd(EndCause.PANICKED if panic else EndCause.POWERED_OFF, panic)
