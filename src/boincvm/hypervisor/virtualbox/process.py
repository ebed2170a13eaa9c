"""The process that runs one machine, `VBoxHeadless`, and the serial lines that it connects."""

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

from boincvm.errors import HypervisorError, HypervisorKilledError
from boincvm.host.process_tree import own_usage
from boincvm.host.processes import ChildProcess, DeathGuard
from boincvm.host.signals import ENDING_SIGNALS
from boincvm.hypervisor.console import Console
from boincvm.hypervisor.contract import EndCause, MachineEnd, Usage
from boincvm.hypervisor.listeners import listen_at
from boincvm.hypervisor.process_end import end_by_signal
from boincvm.hypervisor.virtualbox.command import CONSOLE, LINES, LINK, RECEIPTS
from boincvm.hypervisor.virtualbox.home import Home
from boincvm.hypervisor.virtualbox.installation import HEADLESS, program
from boincvm.hypervisor.virtualbox.machine_log import MachineLog
from boincvm.hypervisor.virtualbox.vboxmanage import error_from

_START_LIMIT = 120.0
"""Seconds until it has connected its serial lines."""
_GURU = "Guru Meditation "
"""VirtualBox's word for a machine that it cannot run any further."""


class HeadlessProcess:
    """VBoxHeadless with its machine; make one with `start`.

    `link` and `receipts` are our ends of its serial lines; the caller that takes them owns them.
    """

    def __init__(
        self,
        child: ChildProcess,
        guard: DeathGuard,
        output: Console,
        log: MachineLog,
        lines: list[socket.socket],
    ) -> None:
        self.child = child
        self._log = log
        self._guard = guard
        self.link, self.receipts = lines[LINK], lines[RECEIPTS]
        self._console = Console(lines[CONSOLE])
        self._output = output

    @classmethod
    async def start(
        cls, home: Home, machine: str, *, paused: bool, remote_desktop: bool
    ) -> "HeadlessProcess":
        """Start the machine, whose definition lies in `home`.

        Raises HypervisorError, HypervisorMissingError, HostDiskFullError, OSError.
        """
        path = program(HEADLESS)
        with ExitStack() as stack:
            listeners = [stack.enter_context(listen_at(home.socket(line))) for line in LINES]
            ours, its = socket.socketpair()
            with its:
                command = [path, "--comment", home.name, "--startvm", machine]
                command += ["--vrde", "config" if remote_desktop else "off"]
                child = ChildProcess(
                    [*command, "--start-paused"] if paused else command,
                    directory=Path("/"),
                    stdout=its.fileno(),
                    stderr=its.fileno(),
                    environment=home.environment,
                )
            output = Console(ours, on_panic=child.kill, sign=_GURU.encode())
            guard = None
            try:
                guard = DeathGuard(child.pid, home.name)  # it is a set-user-ID program, mostly
                home.note_process(child.pid)
                lines = await _connected(listeners, child)
                log = MachineLog(home.log, on_disk_full=child.kill) if lines else None
            except BaseException:
                child.end()
                output.close()
                if guard is not None:
                    guard.end()
                raise
        if not lines or log is None:
            guard.end()
            text = output.text()
            output.close()
            if -await child.wait() in ENDING_SIGNALS:
                raise HypervisorKilledError("VirtualBox was killed while it started the machine")
            raise error_from("the machine's start", text)
        return cls(child, guard, output, log, lines)

    async def ended(self) -> MachineEnd:
        """Wait for its end, and return why it ended, as far as VirtualBox and the guest know."""
        status = await self.child.wait()
        self._guard.end()
        if panic := self._console.panic_line():
            return MachineEnd(EndCause.PANICKED, panic)
        if self._log.is_disk_full:
            return MachineEnd(EndCause.HOST_DISK_FULL, "the host's disk is full")
        if reason := self._output.panic_line():
            return MachineEnd(EndCause.FAILED, f"VirtualBox cannot run it further: {reason}")
        if status == 0:
            return MachineEnd(EndCause.POWERED_OFF, "")
        if status > 0:
            end = MachineEnd(EndCause.FAILED, error_from("to go on", self._output.text()).message)
        else:
            end = end_by_signal(-status, "VBoxHeadless")
        if end.cause is EndCause.KILLED:
            return end
        return end._replace(detail=f"{end.detail} (VBox.log: {self._log.cause()})")

    def usage(self) -> Usage | None:
        """Return what it uses, or None if it has ended."""
        return Usage(*own_usage(self.child.pid)) if self.child.is_running else None

    def close(self) -> None:
        """Stop reading what the ended process and its guest have written."""
        self._guard.end()
        self._log.close()
        self._console.close()
        self._output.close()


async def _connected(
    listeners: list[socket.socket], child: ChildProcess
) -> list[socket.socket] | None:
    """Return the connections to all listeners, or None if the child ends first."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        end = group.create_task(child.wait())
        accepted = [group.create_task(loop.sock_accept(listener)) for listener in listeners]
        waiting: set[asyncio.Task[object]] = set(accepted)
        try:
            async with asyncio.timeout(_START_LIMIT):
                while waiting and not end.done():
                    await asyncio.wait({*waiting, end}, return_when=asyncio.FIRST_COMPLETED)
                    waiting = {task for task in waiting if not task.done()}
        except TimeoutError:
            child.kill()
            raise HypervisorError("VirtualBox did not start the machine in time") from None
        finally:
            for task in (*accepted, end):
                task.cancel()
    lines = [task.result()[0] for task in accepted if task.done() and not task.cancelled()]
    if len(lines) == len(listeners):
        return lines
    for line in lines:
        line.close()
    return None
