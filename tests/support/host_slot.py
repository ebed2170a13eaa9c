"""A slot in which tests run the real `boincvm-wrapper` with tasks of the host.

Nothing of a task may outlive the wrapper.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from boincvm.boinc import Control
from boincvm.boinc.testing import End, EndKind
from boincvm.host.process_tree import children, descendants
from support.host_delays import within
from support.slot import WRAPPER, Slot, state

LIMIT = 20.0
"""Seconds that a test waits for anything, at most."""
GONE_WITHIN = 5.0
"""Seconds after which nothing may be left of a task whose wrapper was killed."""
_PR_SET_CHILD_SUBREAPER = 36

OF_WRAPPER = {"wrapper_checkpoint.txt", "boincvm_state.json"}
"""Files that the wrapper leaves in the slot for its next run."""
SHORT_GRACE = 3.0
SHORTENED = f"from boincvm.host import supervised; supervised.GRACE = {SHORT_GRACE}"
"""For `HostSlot.patched`: shortens the time that programs have to end, for tests of what happens to
one that uses all of it."""
OF_CLIENT = {
    "init_data.xml",
    "boinc_mmap_file",
    "stderr.txt",
    "boinc_finish_called",
    "boinc_temporary_exit",
}


class HostSlot(Slot):
    """A slot whose wrappers' orphans become children of this process, so that none is missed."""

    def __init__(self, directory: Path, **options: object) -> None:
        super().__init__(directory, **options)
        self.launcher = WRAPPER
        self._before: set[int] = set()

    async def __aenter__(self) -> Self:
        _adopt_orphans(True)
        await super().__aenter__()
        self._before = set(descendants(os.getpid()))
        return self

    async def __aexit__(self, *details: object) -> None:
        if self.is_running:
            self.kill(signal.SIGKILL)
            await self.wait(LIMIT)
        try:
            with within(GONE_WITHIN):
                await self.until(lambda: not self.below(), LIMIT)
        finally:
            for pid in self.below():
                os.kill(pid, signal.SIGKILL)
            _adopt_orphans(False)
            await super().__aexit__(*details)

    async def begin(self, *arguments: str, **environment: str) -> None:
        await self.start([*self.launcher, *arguments], environment=environment)

    async def run(self, *arguments: str, limit: float = LIMIT, **environment: str) -> End:
        await self.begin(*arguments, **environment)
        return await self.wait(limit)

    async def wait(self, limit: float = LIMIT) -> End:
        """Wait for the end as the client sees it.

        Checks that a wrapper that was not killed has ended all of its task.
        """
        end = await super().wait(limit)
        if end.kind is not EndKind.KILLED:
            assert self.below() == [], self.stderr
        return end

    async def ends_well(self, *arguments: str, **environment: str) -> None:
        end = await self.run(*arguments, **environment)
        assert (end.kind, end.status) == (EndKind.FINISHED, 0), self.stderr

    async def wait_for_text(self, name: str, *words: str, limit: float = LIMIT) -> str:
        return await super().wait_for_text(name, *words, limit=limit)

    async def holds(self, condition: Callable[[], bool], limit: float = LIMIT) -> None:
        await super().holds(condition, limit)

    def patched(self, statements: str) -> None:
        """Change something in all further wrappers, such as a time limit."""
        main = "import sys; from boincvm.cli.boinc_wrapper import main; sys.exit(main())"
        self.launcher = (sys.executable, "-c", f"{statements}\n{main}")

    def below(self) -> list[int]:
        """List processes that descend from the wrapper and still exist, except itself."""
        found = set(descendants(os.getpid())) - self._before
        if self.is_running:
            found.discard(self.pid)
        for pid in tuple(found):
            if state(pid) == "Z":
                _reap(pid)
                found.discard(pid)
        return sorted(pid for pid in found if state(pid) != "gone")

    def of_tasks(self) -> list[int]:
        """List the processes of all tasks, without the guards above them."""
        guards = set(children(self.pid))
        return [pid for pid in descendants(self.pid) if pid not in guards]

    def stands_still(self) -> bool:
        """Tell whether tasks have processes and all of these are stopped or ended.

        A process that waits for a stopped child to exec (vfork(2): D) counts as stopped.
        """
        states = {pid: state(pid) for pid in self.of_tasks()}
        waits = [pid for pid, its in states.items() if its == "D"]
        return (
            "T" in states.values()
            and not {"R", "S"} & set(states.values())
            and all("T" in map(state, children(pid)) for pid in waits)
        )

    async def suspend(self) -> None:
        """Suspend the task and wait until all of it stands still.

        It is looked at twice: a process that was just waiting for the disk (D) may go on.
        """
        self.send(Control.SUSPEND)
        looks: list[bool] = []

        def stays() -> bool:
            looks.append(self.stands_still())
            return looks[-2:] == [True, True]

        await self.holds(stays)

    def pid_in(self, name: str) -> int:
        """Return the process id that a program has written to a file of the slot."""
        return int(self.text(name).split()[0])

    def left(self) -> set[str]:
        """Return names in the slot that are neither the client's nor for the wrapper's next run."""
        return {path.name for path in self.path.iterdir()} - OF_CLIENT - OF_WRAPPER


def task(script: str, *elements: str) -> str:
    """Return the inside of a <task>: a shell script, in which only `"` is special."""
    text = script.replace("&", "&amp;").replace("<", "&lt;")
    more = "".join(elements)
    return f'<application>/bin/sh</application><command_line>-c "{text}"</command_line>{more}'


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # its own parent is alive and does it


def _adopt_orphans(adopt: bool) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    rest = [ctypes.c_ulong(number) for number in (int(adopt), 0, 0, 0)]
    if library.prctl(_PR_SET_CHILD_SUBREAPER, *rest) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
