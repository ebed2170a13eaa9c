"""The QEMU driver: one process a machine, spoken to by QMP over an inherited socket pair."""

import asyncio
import contextlib
import errno
import os
import socket
import struct
import subprocess

from qemu.qmp import ConnectError, Message, QMPClient, QMPError, Runstate

from boincvm.errors import HostDiskFullError, HypervisorError, UsageError
from boincvm.hypervisor import qemu_command
from boincvm.hypervisor.contract import EndCause, Feature, MachineEnd, MachineSpec, MachineState
from boincvm.processes import ChildProcess, run_quickly
from boincvm.sizes import format_size

OVERLAY, WINDOW, LOG = qemu_command.OVERLAY, qemu_command.WINDOW, "qemu.log"
WINDOW_SIZE = 32 << 20
CONSOLE_KEPT = 64 << 10
"""Bytes of the guest's console that are kept, the last ones."""
QMP_LIMIT = 30.0
"""Seconds that a QMP command may take; it takes milliseconds unless QEMU is stuck."""
SAVE_LIMIT = 300.0


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
        self._qmp: QMPClient | None = None
        self._console: socket.socket | None = None
        self._console_tail = bytearray()
        self._log = -1
        self._window = -1
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
        if self.state is MachineState.RUNNING:
            raise HypervisorError("the machine is already running, and its link is taken")
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
        self._watch_console(console)
        link.setblocking(False)
        try:
            await self._connect(qmp)
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

    async def _connect(self, qmp: socket.socket) -> None:
        self._qmp = QMPClient("boincvm")
        qmp.setblocking(False)
        try:
            async with asyncio.timeout(QMP_LIMIT):
                await self._qmp.connect(qmp)
        except (ConnectError, TimeoutError) as error:
            qmp.close()
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

    def _unlink_files(self) -> None:
        for name in (OVERLAY, WINDOW, LOG):
            (self.spec.directory / name).unlink(missing_ok=True)

    def _watch_console(self, console: socket.socket) -> None:
        console.setblocking(False)
        self._console = console
        asyncio.get_running_loop().add_reader(console, self._read_console)

    def _read_console(self) -> bool:
        """Takes in what is there; False when there was nothing."""
        if self._console is None:
            return False
        try:
            data = self._console.recv(1 << 12)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ECONNRESET:
                raise
            data = b""
        if data:
            self._console_tail += data
            del self._console_tail[:-CONSOLE_KEPT]
        else:
            self._close_console()
        return bool(data)

    def _close_console(self) -> None:
        if self._console is not None:
            asyncio.get_running_loop().remove_reader(self._console)
            self._console.close()
            self._console = None

    async def _execute(self, command: str, arguments: dict[str, object] | None = None) -> object:
        if self._qmp is None or self._qmp.runstate is not Runstate.RUNNING:
            raise HypervisorError(f"QEMU is gone, so there was no {command}")
        try:
            async with asyncio.timeout(QMP_LIMIT):
                return await self._qmp.execute(command, arguments)
        except (QMPError, TimeoutError) as error:
            raise HypervisorError(f"QEMU refused {command}: {error}") from error

    async def pause(self) -> None:
        if self.state is MachineState.RUNNING:
            await self._execute("stop")
            self.state = MachineState.PAUSED

    async def resume(self) -> None:
        if self.state is MachineState.PAUSED:
            await self._execute("cont")
            self.state = MachineState.RUNNING

    async def save(self) -> None:
        if self.state is MachineState.SAVED:
            return
        if self._qmp is None or self._process is None:
            raise HypervisorError("the machine is not running, so there is nothing to save")
        node = qemu_command.ROOT_NODE
        with self._qmp.listener("JOB_STATUS_CHANGE") as changes:
            await self._execute(
                "snapshot-save",
                {"job-id": "save", "tag": qemu_command.SAVED, "vmstate": node, "devices": [node]},
            )
            async with asyncio.timeout(SAVE_LIMIT):
                async for change in changes:
                    if _job_status(change) == "concluded":
                        break
        await self._raise_job_error()
        self._asked_to_end = True
        await self._execute("quit")
        await self._process.wait()
        await self._let_go()
        self.state = MachineState.SAVED

    async def _raise_job_error(self) -> None:
        jobs = await self._execute("query-jobs")
        for job in jobs if isinstance(jobs, list) else ():
            if job["id"] == "save" and "error" in job:
                raise HypervisorError(f"QEMU could not save the machine: {job['error']}")

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
        if self._qmp is not None:
            # It may have died before it could say goodbye, which `ended` tells.
            with contextlib.suppress(QMPError, EOFError, OSError):
                await self._qmp.disconnect()
            self._qmp = None
        self._close_console()
        for descriptor in (self._window, self._log):
            if descriptor >= 0:
                os.close(descriptor)
        self._window = self._log = -1

    async def destroy(self) -> None:
        await self.stop()
        self._unlink_files()
        self.state = MachineState.DESTROYED

    async def ended(self) -> MachineEnd:
        if self._process is None:
            raise HypervisorError("the machine was never started")
        disk_full = False
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._kill_when_disk_full())
            status = await self._process.wait()
            disk_full = watcher.done() and not watcher.cancelled()
            watcher.cancel()
        if self._asked_to_end:
            return MachineEnd(EndCause.ASKED, "")
        if disk_full:
            return MachineEnd(EndCause.HOST_DISK_FULL, "the host's disk is full")
        if status < 0:
            return MachineEnd(EndCause.KILLED, f"signal {-status} ended QEMU")
        if status > 0:
            return MachineEnd(EndCause.FAILED, self._log_line() or f"QEMU ended with {status}")
        return MachineEnd(EndCause.GUEST, self._panic_line())

    async def _kill_when_disk_full(self) -> None:
        """QEMU stops the guest when the host's disk is full; nobody would ever wake it."""
        if self._qmp is None or self._process is None:
            return
        with self._qmp.listener("BLOCK_IO_ERROR") as errors:
            async for error in errors:
                data = error["data"]
                if isinstance(data, dict) and data.get("nospace"):
                    self._process.kill()
                    return

    def _panic_line(self) -> str:
        """Why the guest's kernel gave up, from its console, if it did."""
        while self._console is not None and self._read_console():
            pass
        text = self._console_tail.decode(errors="replace")
        for line in text.splitlines():
            _, found, rest = line.partition("Kernel panic - ")
            if found:
                return "kernel panic: " + "".join(filter(str.isprintable, rest))[:200]
        return ""

    def _log_line(self) -> str:
        return _last_line(os.pread(self._log, 1 << 16, 0).decode(errors="replace"))


def _job_status(change: Message) -> str:
    data = change["data"]
    return str(data.get("status")) if isinstance(data, dict) else ""


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return "".join(filter(str.isprintable, lines[-1]))[:300] if lines else ""
