"""One machine of this host, as its controller sees it, and its shim.

A shim is a separate process (shim/process.py). It keeps running while there is no controller, and
the next controller finds it by the lock that it holds.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from boincvm.byte_text import decoded
from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import BoincvmError, HostError
from boincvm.host.process_tree import command_line
from boincvm.host.processes import kill_opened, open_process, spawn_detached, wait_for_child
from boincvm.shim.machine_directory import MachineDirectory, Status

_SHIM = "boincvm.shim.process"

Changed = Callable[[str], None]
"""Called with the id of a machine whose state has changed."""


class LocalMachine:
    """A machine of this host.

    `ended_unexpectedly`: no shim runs, and the last one could not announce its end; `was_killed`:
    the last shim was started by this controller and ended by a signal.
    """

    def __init__(self, directory: MachineDirectory, changed: Changed) -> None:
        self.directory = directory
        self.definition = directory.definition()
        self.status = directory.status()
        self.report: Report | None = None
        """The last report of its shim; None while no shim runs."""
        self.is_silent = False
        """Its shim runs but has not been heard for too long: the machine's state is unknown."""
        self.ended_unexpectedly = self.was_killed = False
        self._changed = changed
        self._news = asyncio.Event()
        self._pidfd = -1
        self._child = 0  # the shim's process id, if this controller started it
        self._is_killed = False

    @property
    def id(self) -> str:
        return self.definition.id

    @property
    def has_shim(self) -> bool:
        """Tell whether its shim runs."""
        return self._pidfd >= 0

    @property
    def is_ending(self) -> bool:
        """Tell whether its shim still runs although the machine is off."""
        return self.has_shim and self.state.is_off

    @property
    def state(self) -> VmState:
        state = self.report.state if self.report else self.status.state
        return VmState.STUCK if self.is_silent and not state.is_off else state

    @property
    def why(self) -> str:
        return self.report.why if self.report else self.status.why

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds."""
        while not condition():
            await self._news.wait()

    async def until_not(self, state: VmState) -> None:
        """Wait until the machine is in another state."""
        await self.until(lambda: self.state is not state)

    def notify(self) -> None:
        """Notify all that wait for a change."""
        self._news.set()
        self._news = asyncio.Event()
        self._changed(self.id)

    def set_silent(self, *, is_silent: bool) -> None:
        """Record that its shim has fallen silent, or is heard again."""
        if self.has_shim and self.is_silent is not is_silent:
            self.is_silent = is_silent
            self.notify()

    def take_report(self, report: Report) -> None:
        """Take a report of its shim."""
        had_shim = self.has_shim
        if self.find_shim():
            before, self.report = self.state, report
            if not had_shim or before is not report.state:
                self.notify()

    # Its shim.

    def spawn(self, snapshot: str | None) -> None:
        """Start a shim, which outlives this controller. Raises OSError."""
        argv = [sys.executable, "-P", "-m", _SHIM, str(self.directory.directory)]
        if snapshot is not None:
            argv += ["--snapshot", snapshot]
        with self.directory.log.open("ab") as log:
            pid = spawn_detached(argv, log.fileno())
        self.report = Report(VmState.STARTING)
        self.is_silent = self.ended_unexpectedly = self._is_killed = False
        self._child = pid
        self._watch(pid)
        self.notify()

    def adopt(self) -> bool:
        """Take over the shim that an earlier controller started; return True if there is one.

        A shim that has not announced itself yet is taken over later. Raises BoincvmError.
        """
        self.status = self.directory.status()
        try:
            if not self._is_shim(self.status.pid):
                if not self.directory.is_locked():
                    self._reconcile()
                return False
            self._watch(self.status.pid)
        except ProcessLookupError:  # it has just ended
            self._reconcile()
            return False
        self.report = Report(self.status.state, self.status.why, started_at=self.status.started_at)
        return True

    def find_shim(self) -> bool:
        """Tell whether its shim runs, even one that was too new for `adopt` before."""
        if not self.has_shim:
            try:
                return self.directory.is_locked() and self.adopt()
            except BoincvmError:
                return False  # reported when its files are needed
        return True

    def _is_shim(self, pid: int) -> bool:
        """Tell whether a process is this machine's shim: process ids are reused."""
        names = {Path(decoded(argument)).name for argument in command_line(pid)}
        return {_SHIM, self.directory.directory.name} <= names

    def _watch(self, pid: int) -> None:
        opened = open_process(pid)
        if opened is None:
            raise HostError("this system cannot report when a machine's shim ends")
        self._pidfd = opened
        asyncio.get_running_loop().add_reader(opened, self._ended)

    def kill_shim(self) -> None:
        """Kill its shim and with it the machine, which is thus powered off at once."""
        if self.has_shim:
            self._is_killed = True
            kill_opened(self._pidfd)

    def _ended(self) -> None:
        self.release()
        if self._child:
            self.was_killed = wait_for_child(self._child) < 0
            self._child = 0
        self.report, self.is_silent = None, False
        try:
            self.adopt()  # ours may have ended because another one runs
        except BoincvmError:
            self._reconcile()
        self.notify()

    def _reconcile(self) -> None:
        """Read the final status: what the shim wrote last, unless the shim was killed."""
        self.report = None
        try:
            self.status = self.directory.status()
        except BoincvmError as error:
            self.status = self.status._replace(state=VmState.ABORTED, why=error.message)
            return
        if not self.status.state.is_off:
            state, why = VmState.ABORTED, "its shim was killed, and the machine with it"
            if self._is_killed:
                state, why = VmState.POWERED_OFF, ""
            self.ended_unexpectedly = True
            self.status = self.status._replace(
                state=state, why=why, started_at=None, was_shut_down=False
            )
            with suppress(OSError):  # the next controller finds out as this one did
                self.directory.write_status(self.status)

    def set_status(self, status: Status) -> None:
        """Change the stored status, only while no shim runs. Raises OSError."""
        self.directory.write_status(status)
        self.status = status

    def release(self) -> None:
        """Stop watching its shim, which keeps running; calling this again is harmless."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
