"""The machines of this host: what lies on disk for each, and the keepers that run.

A keeper is a process of its own (keeper/process.py). It goes on while there is no controller, and
a controller that begins finds it again by the lock that it holds.
"""

import asyncio
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from boincvm.controller.keeper.place import BusPlace, Definition, Place, Status, check_id
from boincvm.controller.keeper.snapshots import Snapshots
from boincvm.controller.report import Report
from boincvm.controller.vm_state import VmState
from boincvm.errors import BoincvmError, HostError, UsageError
from boincvm.image.names import check_image_name
from boincvm.job import values
from boincvm.job.values import UnexpectedValueError

MOST = 1000
_MOST_LABELS = 48
_MOST_LOG_LINES = 10_000
_KEEPER = "boincvm.controller.keeper.process"

Changed = Callable[[str], None]
"""Takes the id of a machine whose state is another one."""


class LocalMachine:
    """report: what its keeper told last, None while none runs."""

    def __init__(self, place: Place, changed: Changed) -> None:
        self.place = place
        self.definition = place.definition()
        self.status = place.status()
        self.report: Report | None = None
        self._changed = changed
        self._news = asyncio.Event()
        self._pidfd = -1
        self._child = 0  # its process, if it is ours

    @property
    def id(self) -> str:
        return self.definition.id

    @property
    def is_kept(self) -> bool:
        """Whether its keeper runs."""
        return self._pidfd >= 0

    @property
    def is_ending(self) -> bool:
        """Whether its keeper runs, and has nothing to keep any more."""
        return self.is_kept and self.state.is_off

    @property
    def state(self) -> VmState:
        return self.report.state if self.report else self.status.state

    @property
    def why(self) -> str:
        return self.report.why if self.report else self.status.why

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until it is so."""
        while not condition():
            await self._news.wait()

    def tell(self) -> None:
        """Something is another than it was."""
        self._news.set()
        self._news = asyncio.Event()
        self._changed(self.id)

    def take_report(self, report: Report) -> None:
        """What its keeper says."""
        if self.is_kept:
            before, self.report = self.state, report
            if before is not report.state:
                self.tell()

    # Its keeper.

    def spawn(self, snapshot: str | None) -> None:
        """Begins a keeper, which nobody ends with us. Raises OSError."""
        argv = [sys.executable, "-P", "-m", _KEEPER, str(self.place.directory)]
        if snapshot is not None:
            argv += ["--snapshot", snapshot]
        with self.place.log.open("ab") as log:
            # Not by `subprocess`, which wants to see the end of all that it begins.
            pid = os.posix_spawn(
                argv[0],
                argv,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 1),
                    (os.POSIX_SPAWN_DUP2, log.fileno(), 2),
                ],
                setsid=True,
            )
        self.report = Report(VmState.STARTING)
        self._child = pid
        self._watch(pid)
        self.tell()

    def adopt(self) -> bool:
        """Takes up the keeper that a former controller has begun; whether there is one."""
        if not self.place.is_kept():
            self._settle()
            return False
        self.status = self.place.status()
        self.report = Report(self.status.state, self.status.why, started_at=self.status.started_at)
        try:
            self._watch(self.status.pid)
        except ProcessLookupError:
            self._settle()
            return False
        return True

    def _watch(self, pid: int) -> None:
        self._pidfd = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        self.let_go()
        if self._child:
            os.waitpid(self._child, 0)
            self._child = 0
        self._settle()
        self.tell()

    def _settle(self) -> None:
        """No keeper runs: what it wrote last holds, unless it was killed."""
        self.report = None
        self.status = self.place.status()
        if not self.status.state.is_off:
            why = "its keeper was killed, and the machine with it"
            self.set_status(self.status._replace(state=VmState.ABORTED, why=why, started_at=None))

    def set_status(self, status: Status) -> None:
        """Only while no keeper runs. Raises OSError."""
        self.place.write_status(status)
        self.status = status

    def let_go(self) -> None:
        """Its keeper, if any, runs on, unwatched; again is harmless."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


class Machines:
    """Those in `directory`. `bus_for`: how a keeper with that id reaches the bus."""

    def __init__(
        self, directory: Path, bus_for: Callable[[str], BusPlace], changed: Changed
    ) -> None:
        self._directory = directory
        self._bus_for = bus_for
        self._changed = changed
        self._machines: dict[str, LocalMachine] = {}

    def load(self) -> list[str]:
        """Finds all that there are, and takes up their keepers; what could not be read, a line
        each. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        troubles = []
        for path in sorted(self._directory.iterdir()):
            if not (path / "machine.json").exists():
                shutil.rmtree(path, ignore_errors=True)  # it was being made, or removed
                continue
            try:
                machine = LocalMachine(Place(path), self._changed)
                machine.adopt()
            except BoincvmError as error:
                troubles.append(error.message)
                continue
            self._machines[machine.id] = machine
        return troubles

    def find(self, machine_id: str) -> LocalMachine | None:
        return self._machines.get(machine_id)

    def all(self) -> list[LocalMachine]:
        return list(self._machines.values())

    def create(
        self,
        name: str,
        *,
        image: str,
        memory: str,
        cpus: int,
        disk: str | None,
        network: bool,
        display: bool,
        labels: Mapping[str, str],
    ) -> LocalMachine:
        """One that is powered off. Raises UsageError, OSError."""
        machine_id = check_id(name)
        if len(self._machines) >= MOST:
            raise UsageError(f"there are {MOST} machines", hint="remove some first")
        check_image_name(image)
        try:
            definition = Definition(
                machine_id,
                image,
                values.memory(memory),
                values.cpus(cpus),
                None if disk is None else values.disk(disk),
                network,
                display,
                _checked_labels(labels),
                time.time(),
            )
        except UnexpectedValueError as error:
            raise UsageError(str(error)) from error
        place = Place(self._directory / machine_id)
        place.make(definition, self._bus_for(machine_id))
        machine = self._machines[machine_id] = LocalMachine(place, self._changed)
        machine.tell()
        return machine

    async def start(self, machine: LocalMachine, snapshot: str | None = None) -> None:
        """Until it runs. Raises HostError, with what went wrong."""
        await machine.until(lambda: not machine.is_ending)
        if not machine.is_kept:
            machine.place.write_bus(self._bus_for(machine.id))
            machine.spawn(snapshot)
        begins = (VmState.STARTING, VmState.RESTORING)
        await machine.until(lambda: not machine.is_kept or machine.state not in begins)
        await machine.until(lambda: not machine.is_ending)
        if not machine.is_kept:
            raise HostError(
                f"the machine {machine.id} did not start: {machine.why or 'see its log'}",
                hint=f"boincvm logs {machine.id}",
            )

    def remove(self, machine: LocalMachine) -> None:
        """One whose keeper does not run. Raises UsageError, OSError."""
        with machine.place.held():
            # Without its definition it is no machine any more, should we be interrupted.
            (machine.place.directory / "machine.json").unlink(missing_ok=True)
            shutil.rmtree(machine.place.directory)
        del self._machines[machine.id]
        machine.tell()

    def discard(self, machine: LocalMachine) -> None:
        """Forgets where it was saved: it will boot. Raises UsageError, OSError."""
        with machine.place.held():
            saved = machine.status.saved
            machine.set_status(
                machine.status._replace(state=VmState.POWERED_OFF, saved=None, why="")
            )
            if saved is not None:
                layers = frozenset(machine.status.layers)
                Snapshots(machine.place).forget_checkpoint(saved, layers)
        machine.tell()

    def remove_snapshot(self, machine: LocalMachine, name: str) -> None:
        """Of one whose keeper does not run. Raises UsageError, OSError."""
        with machine.place.held():
            status = machine.status
            Snapshots(machine.place).remove(name, frozenset(status.layers), status.saved)

    def log_lines(self, machine_id: str, count: int) -> list[str]:
        """The last ones of its keeper's log. Raises UsageError."""
        machine = self._machines.get(machine_id)
        if machine is None:
            raise UsageError(
                f"{machine_id[:64]!r} is no machine of this host", hint="boincvm ls shows them"
            )
        try:
            with machine.place.log.open("rb") as file:
                lines: deque[bytes] = deque(file, maxlen=min(count, _MOST_LOG_LINES))
        except FileNotFoundError:
            return []  # it was never started
        return [line.decode("utf-8", "replace").rstrip("\n") for line in lines]

    def close(self) -> None:
        """Keepers and their machines run on."""
        for machine in self._machines.values():
            machine.let_go()


def _checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    if len(labels) > _MOST_LABELS:
        raise UsageError(f"a machine has at most {_MOST_LABELS} labels")
    for word in (*labels, *labels.values()):
        if len(word) > 255 or not word.isprintable():
            raise UsageError(f"found {word[:80]!r}, expected a label of at most 255 characters")
    return dict(labels)
