"""The QEMU driver: one process a machine, spoken to by QMP over an inherited socket pair."""

import asyncio
import errno
import os
import socket

from boincvm.errors import HypervisorError
from boincvm.hypervisor import qemu_command
from boincvm.hypervisor.contract import (
    EndCause,
    Feature,
    GuestMemory,
    MachineEnd,
    MachineSpec,
    MachineState,
)
from boincvm.hypervisor.qemu_balloon import ASK_PERIOD, Balloon
from boincvm.hypervisor.qemu_console import Console
from boincvm.hypervisor.qemu_monitor import Monitor
from boincvm.hypervisor.qemu_process import LOG as LOG
from boincvm.hypervisor.qemu_process import OVERLAY as OVERLAY
from boincvm.hypervisor.qemu_process import WINDOW as WINDOW
from boincvm.hypervisor.qemu_process import QemuProcess, make_files


class QemuDriver:
    """Machines on QEMU, accelerated as `accelerator` says: "kvm" or "tcg"."""

    name = "qemu"
    features = frozenset(Feature)

    def __init__(self, accelerator: str) -> None:
        self.accelerator = accelerator

    def machine(self, spec: MachineSpec) -> "QemuMachine":
        return QemuMachine(spec, self.accelerator)

    def saved_machine(self, spec: MachineSpec, checkpoint: str) -> "QemuMachine":
        return QemuMachine(spec, self.accelerator, saved=checkpoint)


class QemuMachine:
    """One QEMU process and what it has on disk: `overlay.qcow2`, `window`, `qemu.log`."""

    def __init__(self, spec: MachineSpec, accelerator: str, *, saved: str = "") -> None:
        """`saved`: the checkpoint by which it is on disk, "" for none."""
        self.spec = spec
        self.state = MachineState.SAVED if saved else MachineState.DEFINED
        self._accelerator = accelerator
        self._process: QemuProcess | None = None
        self._monitor: Monitor | None = None
        self._console: Console | None = None
        self._saved = saved
        self._asked_to_end = False

    @property
    def transfer_window(self) -> int | None:
        window = self._process.window if self._process else -1
        return window if window >= 0 else None

    def process_ids(self) -> tuple[int, ...]:
        if self._process is None or not self._process.child.is_running:
            return ()
        return (self._process.child.pid,)

    async def create(self) -> None:
        if self.state is not MachineState.DEFINED:
            return
        make_files(self.spec)
        self.state = MachineState.CREATED

    async def start(self) -> socket.socket:
        if self.state in (MachineState.RUNNING, MachineState.PAUSED):
            raise HypervisorError("the machine is already running, and its link is taken")
        if self.state is MachineState.DESTROYED:
            raise HypervisorError("the machine was destroyed, so it cannot start")
        await self.create()
        process = self._process = QemuProcess(
            self.spec, self._accelerator, saved=self.state is MachineState.SAVED
        )
        self._asked_to_end = False
        self._console = Console(process.console)
        process.link.setblocking(False)
        try:
            await self._begin(process)
        except BaseException:
            process.link.close()
            raise
        self.state = MachineState.RUNNING
        return process.link

    async def _begin(self, process: QemuProcess) -> None:
        """Once QEMU answers: takes its files away or gives it the saved state."""
        try:
            self._monitor = await Monitor.open(process.qmp)
            if self.state is MachineState.SAVED:
                await self._job("snapshot-load", self._saved)
                await self._monitor.execute("cont")
                await self._forget_others(self._monitor)
        except HypervisorError as error:
            process.child.kill()
            await process.child.wait()
            reason = process.last_words() or error
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

    async def _job(self, command: str, checkpoint: str) -> None:
        """Runs a snapshot job, as long as QEMU lives. Only the root disk has snapshots: the
        transfer disk holds nothing worth keeping."""
        if self._monitor is None or self._process is None:
            raise HypervisorError(f"the machine is not running, so there was no {command}")
        arguments: dict[str, object] = {"tag": checkpoint, "devices": [qemu_command.ROOT_NODE]}
        if command != "snapshot-delete":
            arguments["vmstate"] = qemu_command.ROOT_NODE
        job = asyncio.ensure_future(self._monitor.run_job(command, arguments))
        end = asyncio.ensure_future(self._process.child.wait())
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

    async def connect_network(self, *, connected: bool) -> None:
        if self.spec.network and self._monitor is not None:
            await self._monitor.execute(
                "set_link", {"name": qemu_command.NETWORK_CARD, "up": connected}
            )

    async def set_memory(self, size: int) -> None:
        if self.spec.balloon:
            await self._balloon().set_size(min(size, self.spec.memory))
            if size >= self.spec.memory:
                await self._balloon().ask_every(0)

    async def memory(self) -> GuestMemory | None:
        if not self.spec.balloon:
            return None
        was_asked = await self._balloon().ask_every(ASK_PERIOD)
        return await self._balloon().said() if was_asked else None

    def _balloon(self) -> Balloon:
        if self._monitor is None:
            raise HypervisorError("the machine is not running, so its memory cannot be looked at")
        return Balloon(self._monitor)

    async def checkpoint(self) -> str:
        was_paused = self.state is MachineState.PAUSED
        await self.pause()
        checkpoint = f"checkpoint-{os.urandom(8).hex()}"
        await self._job("snapshot-save", checkpoint)
        if not was_paused:
            await self.resume()
        return checkpoint

    async def forget(self, checkpoint: str) -> None:
        await self._job("snapshot-delete", checkpoint)

    async def _forget_others(self, monitor: Monitor) -> None:
        """Of a process that was ended in the middle there may be more than one."""
        for checkpoint in await monitor.snapshots(qemu_command.ROOT_NODE):
            if checkpoint != self._saved:
                await self.forget(checkpoint)

    async def save(self) -> str:
        if self.state is MachineState.SAVED:
            return self._saved
        if self._monitor is None or self._process is None:
            raise HypervisorError("the machine is not running, so there is nothing to save")
        await self.pause()
        self._saved = await self.checkpoint()
        self._asked_to_end = True
        await self._execute("quit")
        await self._process.child.wait()
        await self._let_go()
        self.state = MachineState.SAVED
        return self._saved

    async def stop(self) -> None:
        if self._process is not None:
            self._asked_to_end = True
            self._process.child.kill()
            await self._process.child.wait()
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
        if self._process is not None:
            self._process.release()

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
            process.child.kill()

        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(end_when_disk_full(monitor)) if monitor else None
            status = await process.child.wait()
            if watcher is not None:
                watcher.cancel()
        if self._asked_to_end:
            return MachineEnd(EndCause.ASKED, "")
        if disk_full:
            return MachineEnd(EndCause.HOST_DISK_FULL, "the host's disk is full")
        if status < 0:
            return MachineEnd(EndCause.KILLED, f"signal {-status} ended QEMU")
        if status > 0:
            return MachineEnd(EndCause.FAILED, process.last_words() or f"QEMU ended with {status}")
        return MachineEnd(EndCause.GUEST, self._console.panic_line() if self._console else "")
