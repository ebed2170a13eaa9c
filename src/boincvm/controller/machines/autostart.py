"""Start the machines that are marked for it, once after each boot of the host."""

import asyncio
from contextlib import suppress
from pathlib import Path

from boincvm.controller.events import EventLog
from boincvm.controller.machines.machines import Machines
from boincvm.controller.machines.operations import MachineOperations
from boincvm.errors import BoincvmError
from boincvm.host.atomic_files import write_atomically
from boincvm.host.resources import boot_id


class Autostart:
    """Starts machines in the background; to be closed at the end.

    A controller that is started again on the same boot starts nothing: a machine that somebody has
    stopped since stays off.
    """

    def __init__(
        self, machines: Machines, operations: MachineOperations, events: EventLog, path: Path
    ) -> None:
        """`path`: a file for the id of the boot on which the machines were started last."""
        self._machines = machines
        self._operations = operations
        self._events = events
        self._path = path
        self._work: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin to start them if the host has booted since. Raises OSError."""
        boot = boot_id()
        if self._last() != boot:
            marked = [
                machine.id for machine in self._machines.all() if machine.definition.autostart
            ]
            self._work = asyncio.create_task(self._start_all(marked, boot))

    async def finished(self) -> None:
        """Wait until all that had to be started were started, or could not be."""
        if self._work is not None:
            await asyncio.wait((self._work,))

    async def close(self) -> None:
        """Wait for no more machines; those whose start has begun start all the same."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    def _last(self) -> str:
        with suppress(FileNotFoundError):
            return self._path.read_text(errors="replace")
        return ""

    async def _start_all(self, marked: list[str], boot: str) -> None:
        async with asyncio.TaskGroup() as group:
            for machine_id in marked:
                group.create_task(self._start(machine_id))
        try:
            write_atomically(self._path, boot)
        except OSError as error:  # they are started once more, which is harmless
            self._events.add("trouble", None, f"{self._path.name} cannot be written: {error}")

    async def _start(self, machine_id: str) -> None:
        try:
            await self._operations.run(machine_id, "start", {})
        except BoincvmError as error:
            self._events.add("trouble", machine_id, f"it was not started: {error.message}")
