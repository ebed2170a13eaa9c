"""One machine of this host, as its controller sees it, and its shim.

A shim is a process of its own (shim/process.py). It goes on while there is no controller, and
a controller that begins finds it again by the lock that it holds.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from boincvm.controller.protocol.report import Report
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import BoincvmError, HostError
from boincvm.host.process_tree import command_line
from boincvm.host.processes import kill_opened, open_process, spawn_detached, wait_for_child
from boincvm.shim.machine_directory import MachineDirectory, Status

_SHIM = "boincvm.shim.process"

Changed = Callable[[str], None]
"""Takes the id of a machine whose state is another one."""


class LocalMachine:
    """report: what its shim told last, None while none runs. is_silent: the shim runs, and
    has not been heard for so long that nobody knows how its machine is. ended_unasked: no shim
    runs, and the last one could not say that it was ending. was_killed: by a signal, if it was
    ours."""

    def __init__(self, place: MachineDirectory, changed: Changed) -> None:
        self.place = place
        self.definition = place.definition()
        self.status = place.status()
        self.report: Report | None = None
        self.is_silent = False
        self.ended_unasked = self.was_killed = False
        self._changed = changed
        self._news = asyncio.Event()
        self._pidfd = -1
        self._child = 0  # its process, if it is ours
        self._is_killed = False

    @property
    def id(self) -> str:
        return self.definition.id

    @property
    def is_kept(self) -> bool:
        """Whether its shim runs."""
        return self._pidfd >= 0

    @property
    def is_ending(self) -> bool:
        """Whether its shim runs, and has nothing to keep any more."""
        return self.is_kept and self.state.is_off

    @property
    def state(self) -> VmState:
        state = self.report.state if self.report else self.status.state
        return VmState.STUCK if self.is_silent and not state.is_off else state

    @property
    def why(self) -> str:
        return self.report.why if self.report else self.status.why

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until it is so."""
        while not condition():
            await self._news.wait()

    async def until_not(self, state: VmState) -> None:
        """Wait until it is in another state."""
        await self.until(lambda: self.state is not state)

    def tell(self) -> None:
        """Notify whoever waits that something has changed."""
        self._news.set()
        self._news = asyncio.Event()
        self._changed(self.id)

    def hear(self, *, is_silent: bool) -> None:
        """Notice that its shim has not been heard for a while, or is heard again."""
        if self.is_kept and self.is_silent is not is_silent:
            self.is_silent = is_silent
            self.tell()

    def take_report(self, report: Report) -> None:
        """Take what its shim tells."""
        was_kept = self.is_kept
        if self.find_shim():
            before, self.report = self.state, report
            if not was_kept or before is not report.state:
                self.tell()

    # Its shim.

    def spawn(self, snapshot: str | None) -> None:
        """Start a shim, which does not end with us. Raises OSError."""
        argv = [sys.executable, "-P", "-m", _SHIM, str(self.place.directory)]
        if snapshot is not None:
            argv += ["--snapshot", snapshot]
        with self.place.log.open("ab") as log:
            pid = spawn_detached(argv, log.fileno())
        self.report = Report(VmState.STARTING)
        self.is_silent = self.ended_unasked = self._is_killed = False
        self._child = pid
        self._watch(pid)
        # Another controller, should we be killed before the shim has said who it is, finds it.
        with suppress(BoincvmError, OSError):  # what is wrong there the shim tells
            self.set_status(self.place.status()._replace(pid=pid))
        self.tell()

    def adopt(self) -> bool:
        """Take up the shim that a former controller has started; tell if there is one. One that
        has not said yet who it is is taken up later. Raises BoincvmError."""
        self.status = self.place.status()
        try:
            if not self._is_shim(self.status.pid):
                if not self.place.is_kept():
                    self._settle()
                return False
            self._watch(self.status.pid)
        except ProcessLookupError:  # just now
            self._settle()
            return False
        self.report = Report(self.status.state, self.status.why, started_at=self.status.started_at)
        return True

    def find_shim(self) -> bool:
        """Whether its shim runs, be it one that had only just begun when `adopt` looked."""
        if not self.is_kept:
            try:
                return self.place.is_kept() and self.adopt()
            except BoincvmError:
                return False  # whoever needs its files is told
        return True

    def _is_shim(self, pid: int) -> bool:
        """Numbers of processes that have ended are given to others."""
        names = {Path(os.fsdecode(word)).name for word in command_line(pid)}
        return {_SHIM, self.place.directory.name} <= names

    def _watch(self, pid: int) -> None:
        opened = open_process(pid)
        if opened is None:
            raise HostError("this system does not tell when a machine's shim ends")
        self._pidfd = opened
        asyncio.get_running_loop().add_reader(opened, self._ended)

    def kill_shim(self) -> None:
        """Kill its shim, and the machine with it: that is how it is powered off at once."""
        if self.is_kept:
            self._is_killed = True
            kill_opened(self._pidfd)

    def _ended(self) -> None:
        self.let_go()
        if self._child:
            self.was_killed = wait_for_child(self._child) < 0
            self._child = 0
        self.report, self.is_silent = None, False
        try:
            self.adopt()  # ours may have ended because there was another one
        except BoincvmError:
            self._settle()
        self.tell()

    def _settle(self) -> None:
        """No shim runs: what it wrote last holds, unless it was killed."""
        self.report = None
        try:
            self.status = self.place.status()
        except BoincvmError as error:
            self.status = self.status._replace(state=VmState.ABORTED, why=error.message)
            return
        if not self.status.state.is_off:
            state, why = VmState.ABORTED, "its shim was killed, and the machine with it"
            if self._is_killed:
                state, why = VmState.POWERED_OFF, ""
            self.ended_unasked = True
            self.status = self.status._replace(state=state, why=why, started_at=None)
            with suppress(OSError):  # the next controller finds it out as this one did
                self.place.write_status(self.status)

    def set_status(self, status: Status) -> None:
        """Change its status; only while no shim runs. Raises OSError."""
        self.place.write_status(status)
        self.status = status

    def let_go(self) -> None:
        """Watch its shim no longer; it runs on. Again is harmless."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
