"""The QEMU driver: one process a machine, spoken to by QMP over an inherited socket pair."""

import asyncio
import errno
import os
import socket
import struct
import subprocess

from boincvm.errors import HostDiskFullError, HypervisorError, UsageError
from boincvm.hypervisor import qemu_command
from boincvm.hypervisor.contract import EndCause, Feature, MachineEnd, MachineSpec, MachineState
from boincvm.hypervisor.qemu_console import Console
from boincvm.hypervisor.qemu_monitor import Monitor
from boincvm.processes import ChildProcess, run_quickly
from boincvm.sizes import format_size

OVERLAY, WINDOW, LOG = qemu_command.OVERLAY, qemu_command.WINDOW, "qemu.log"
WINDOW_SIZE = 32 << 20
_DISK: dict[str, object] = {"tag": qemu_command.SAVED, "devices": [qemu_command.ROOT_NODE]}
_SNAPSHOT_JOBS = {
    "snapshot-save": {**_DISK, "vmstate": qemu_command.ROOT_NODE},
    "snapshot-load": {**_DISK, "vmstate": qemu_command.ROOT_NODE},
    "snapshot-delete": _DISK,
}
"""QMP's jobs and their arguments. The transfer disk holds nothing worth keeping."""


class QemuDriver:
    """Machines on QEMU, accelerated as `accelerator` says: "kvm" or "tcg"."""

    name = "qemu"
    features = frozenset(Feature)

    def __init__(self, accelerator: str) -> None:
        self.accelerator = accelerator

    def machine(self, spec: MachineSpec) -> "QemuMachine":
        return QemuMachine(spec, self.accelerator)


class QemuMachine:
    """One QEMU process and what it has on disk: `overlay.qcow2`, `window`, `qemu.log`."""

    def __init__(self, spec: MachineSpec, accelerator: str) -> None:
        self.spec = spec
        self.state = MachineState.DEFINED
        self._accelerator = accelerator
        self._process: ChildProcess | None = None
        self._monitor: Monitor | None = None
        self._console: Console | None = None
        self._log = -1
        self._window = -1
        self._has_snapshot = False
        self._asked_to_end = False

    @property
    def transfer_window(self) -> int | None:
        return self._window if self._window >= 0 else None

    def process_ids(self) -> tuple[int, ...]:
        return (self._process.pid,) if self._process and self._process.is_running else ()

    async def create(self) -> None:
        if self.state is not MachineState.DEFINED:
            return
        command = [
            qemu_command.find_program("qemu-img"), "create", "-q", "-f", "qcow2",
            "-b", str(self.spec.root), "-F", "qcow2",
            str(self.spec.directory / OVERLAY),
        ]  # fmt: skip
        if self.spec.disk_size is not None:
            self._check_disk_size(self.spec.disk_size)
            command.append(str(self.spec.disk_size))
        try:
            run_quickly(command)
            with (self.spec.directory / WINDOW).open("wb") as window:
                window.truncate(WINDOW_SIZE)
        except subprocess.CalledProcessError as error:
            detail = _last_line(str(error.stderr))
            if "No space left" in detail:
                raise HostDiskFullError(
                    f"the host's disk is full: {detail}", hint="free some space and run again"
                ) from error
            raise HypervisorError(f"qemu-img made no overlay: {detail}") from error
        except subprocess.TimeoutExpired as error:
            raise HypervisorError(f"qemu-img made no overlay: {error}") from error
        self.state = MachineState.CREATED

    def _check_disk_size(self, wanted: int) -> None:
        with self.spec.root.open("rb") as image:
            header = image.read(32)
        (size,) = struct.unpack_from(">Q", header, 24)  # qcow2.txt: the virtual disk's size
        if wanted < size:
            raise UsageError(
                f"a disk of {format_size(wanted)} is less than the image's {format_size(size)}",
                hint="ask for as much or more, or leave the disk's size out",
            )

    async def start(self) -> socket.socket:
        if self.state in (MachineState.RUNNING, MachineState.PAUSED):
            raise HypervisorError("the machine is already running, and its link is taken")
        if self.state is MachineState.DESTROYED:
            raise HypervisorError("the machine was destroyed, so it cannot start")
        await self.create()
        pairs = [socket.socketpair() for _ in range(3)]
        (qmp, qmp_far), (link, link_far), (console, console_far) = pairs
        try:
            self._launch(qmp_far.fileno(), link_far.fileno(), console_far.fileno())
        except BaseException:
            for near, _ in pairs:
                near.close()
            raise
        finally:
            for _, far in pairs:
                far.close()
        self._console = Console(console)
        link.setblocking(False)
        try:
            await self._begin(qmp)
        except BaseException:
            link.close()
            raise
        self.state = MachineState.RUNNING
        return link

    def _launch(self, qmp: int, link: int, console: int) -> None:
        command = qemu_command.machine_command(
            self.spec,
            self._accelerator,
            qmp=qmp,
            link=link,
            console=console,
            saved=self.state is MachineState.SAVED,
        )
        self._asked_to_end = False
        self._window = os.open(self.spec.directory / WINDOW, os.O_RDWR | os.O_CLOEXEC)
        log = self.spec.directory / LOG
        self._log = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._process = ChildProcess(
            command,
            directory=self.spec.directory,
            descriptors=(qmp, link, console),
            stderr=self._log,
        )

    async def _begin(self, qmp: socket.socket) -> None:
        """Once QEMU answers: takes its files away or gives it the saved state."""
        try:
            self._monitor = await Monitor.open(qmp)
            if self.state is MachineState.SAVED:
                await self._job("snapshot-load")
                await self._monitor.execute("cont")
        except HypervisorError as error:
            if self._process:
                self._process.kill()
                await self._process.wait()
            reason = self._log_line() or error
            await self.stop()
            raise HypervisorError(
                f"QEMU did not start: {reason}",
                hint="`boincvm doctor` tests this host",
            ) from error
        if self.spec.ephemeral:
            self._unlink_files()
            self._remove_directory()

    def _unlink_files(self) -> None:
        for name in (OVERLAY, WINDOW, LOG):
            (self.spec.directory / name).unlink(missing_ok=True)

    def _remove_directory(self) -> None:
        try:
            self.spec.directory.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise  # what else is there is somebody else's

    async def _execute(self, command: str) -> None:
        if self._monitor is None:
            raise HypervisorError(f"the machine is not running, so there was no {command}")
        await self._monitor.execute(command)

    async def _job(self, command: str) -> None:
        """Runs a snapshot job, as long as QEMU lives."""
        if self._monitor is None or self._process is None:
            raise HypervisorError(f"the machine is not running, so there was no {command}")
        job = asyncio.ensure_future(self._monitor.run_job(command, _SNAPSHOT_JOBS[command]))
        end = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait((job, end), return_when=asyncio.FIRST_COMPLETED)
            if not job.done():
                raise HypervisorError(f"QEMU ended in the middle of {command}")
            job.result()
        finally:
            job.cancel()
            end.cancel()
            await asyncio.gather(job, end, return_exceptions=True)

    async def pause(self) -> None:
        if self.state is not MachineState.PAUSED:
            await self._execute("stop")
            self.state = MachineState.PAUSED

    async def resume(self) -> None:
        if self.state is not MachineState.RUNNING:
            await self._execute("cont")
            self.state = MachineState.RUNNING

    async def save(self) -> None:
        if self.state is MachineState.SAVED:
            return
        if self._monitor is None or self._process is None:
            raise HypervisorError("the machine is not running, so there is nothing to save")
        await self.pause()
        if self._has_snapshot:
            await self._job("snapshot-delete")
            self._has_snapshot = False
        await self._job("snapshot-save")
        self._has_snapshot = True
        self._asked_to_end = True
        await self._execute("quit")
        await self._process.wait()
        await self._let_go()
        self.state = MachineState.SAVED

    async def stop(self) -> None:
        if self._process is not None:
            self._asked_to_end = True
            self._process.kill()
            await self._process.wait()
            await self._let_go()
        if self.state in (MachineState.RUNNING, MachineState.PAUSED):
            self.state = MachineState.STOPPED

    async def _let_go(self) -> None:
        """Closes our ends of what led to a process that is gone."""
        if self._monitor is not None:
            await self._monitor.close()
            self._monitor = None
        if self._console is not None:
            self._console.close()
            self._console = None
        for descriptor in (self._window, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._window = self._log = -1

    async def destroy(self) -> None:
        await self.stop()
        self._unlink_files()
        self.state = MachineState.DESTROYED

    async def ended(self) -> MachineEnd:
        process, monitor = self._process, self._monitor
        if process is None:
            raise HypervisorError("the machine was never started")
        disk_full = False

        async def end_when_disk_full(monitor: Monitor) -> None:
            # QEMU has stopped the guest then, and nobody would ever wake it.
            nonlocal disk_full
            await monitor.disk_full()
            disk_full = True
            process.kill()

        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(end_when_disk_full(monitor)) if monitor else None
            status = await process.wait()
            if watcher is not None:
                watcher.cancel()
        if self._asked_to_end:
            return MachineEnd(EndCause.ASKED, "")
        if disk_full:
            return MachineEnd(EndCause.HOST_DISK_FULL, "the host's disk is full")
        if status < 0:
            return MachineEnd(EndCause.KILLED, f"signal {-status} ended QEMU")
        if status > 0:
            return MachineEnd(EndCause.FAILED, self._log_line() or f"QEMU ended with {status}")
        return MachineEnd(EndCause.GUEST, self._console.panic_line() if self._console else "")

    def _log_line(self) -> str:
        return _last_line(os.pread(self._log, 1 << 16, 0).decode(errors="replace"))


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return "".join(filter(str.isprintable, lines[-1]))[:300] if lines else ""
