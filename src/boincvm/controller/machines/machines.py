"""Create, find, start and remove the machines of this host."""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from boincvm.bus.broker_address import BrokerAddress
from boincvm.controller.machines.local_machine import Changed, LocalMachine
from boincvm.controller.protocol.guest import check_id
from boincvm.controller.protocol.vm_state import VmState, refusal
from boincvm.errors import (
    BoincvmError,
    HostError,
    ImageDamagedError,
    ImageMissingError,
    UsageError,
)
from boincvm.host.files import open_regular
from boincvm.image.names import check_image_name
from boincvm.image.store import ImageStore
from boincvm.job import values
from boincvm.job.values import UnexpectedValueError
from boincvm.machine.spec import check_memory
from boincvm.shim.machine_directory import Definition, MachineDirectory
from boincvm.shim.snapshots import Snapshots

MOST = 1000
_MOST_LABELS = 48
_MOST_LOG_LINES = 10_000
_MOST_LOG_BYTES = 4 << 20


class Machines:
    """The machines in `directory`; `bus_for` returns how the shim with an id reaches the bus."""

    def __init__(
        self, directory: Path, bus_for: Callable[[str], BrokerAddress], changed: Changed
    ) -> None:
        self._directory = directory
        self._bus_for = bus_for
        self._changed = changed
        self._machines: dict[str, LocalMachine] = {}

    def load(self) -> list[str]:
        """Load all machines and take over their shims.

        Returns a line for each machine that could not be read. Raises OSError.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        troubles = []
        for path in sorted(self._directory.iterdir()):
            try:
                self._load(MachineDirectory(path))
            except BoincvmError as error:
                troubles.append(error.message)
            except OSError as error:
                troubles.append(f"{str(path)!r} cannot be read: {error.strerror}")
        return troubles

    def _load(self, directory: MachineDirectory) -> None:
        """Raises BoincvmError, OSError."""
        path = directory.directory
        if not (path / "machine.json").exists():
            with directory.held():  # fails while a shim runs
                shutil.rmtree(path)  # its creation or removal was interrupted
            return
        machine = LocalMachine(directory, self._changed)
        if machine.id != path.name:
            raise HostError(
                f"{str(path)!r} describes the machine {machine.id}, not the one that the directory"
                " is named after"
            )
        machine.adopt()
        self._machines[machine.id] = machine

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
        """Create a machine, which is powered off. Raises UsageError, OSError."""
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
        _check_memory(definition)
        directory = MachineDirectory(self._directory / machine_id)
        directory.make(definition, self._bus_for(machine_id))
        machine = self._machines[machine_id] = LocalMachine(directory, self._changed)
        machine.notify()
        return machine

    async def start(self, machine: LocalMachine, snapshot: str | None = None) -> None:
        """Start a machine and wait until it runs. Raises HostError if it does not start."""
        await machine.until(lambda: not machine.is_ending)
        if not machine.has_shim:
            machine.directory.write_bus(self._bus_for(machine.id))
            machine.spawn(snapshot)
        begins = (VmState.STARTING, VmState.RESTORING)
        await machine.until(lambda: not machine.has_shim or machine.state not in begins)
        await machine.until(lambda: not machine.is_ending)
        if not machine.has_shim:
            reason = "its shim was killed" if machine.was_killed else "see its log"
            raise HostError(
                f"the machine {machine.id} did not start: {machine.why or reason}",
                hint=f"boincvm logs {machine.id}",
            )
        if machine.state is VmState.STUCK:
            raise refusal(machine.id, machine.state, machine.why)

    def remove(self, machine: LocalMachine) -> None:
        """Remove a machine whose shim does not run. Raises UsageError, OSError."""
        with machine.directory.held():
            # Without its definition it is not a machine any more, should we be interrupted.
            (machine.directory.directory / "machine.json").unlink(missing_ok=True)
            shutil.rmtree(machine.directory.directory)
        del self._machines[machine.id]
        machine.notify()

    def discard(self, machine: LocalMachine) -> None:
        """Discard a machine's saved state: it will boot. Raises UsageError, OSError."""
        with machine.directory.held():
            saved = machine.status.saved
            machine.set_status(
                machine.status._replace(state=VmState.POWERED_OFF, saved=None, why="")
            )
            if saved is not None:
                Snapshots(machine.directory).sweep(frozenset(machine.status.layers))
        machine.notify()

    def remove_snapshot(self, machine: LocalMachine, name: str) -> None:
        """Remove a snapshot of a machine whose shim does not run. Raises UsageError, OSError."""
        with machine.directory.held():
            status = machine.status
            Snapshots(machine.directory).remove(name, frozenset(status.layers), status.saved)

    def log_lines(self, machine_id: str, count: int) -> list[str]:
        """Return the last lines of a machine's log. Raises UsageError, HostError."""
        machine = self._machines.get(machine_id)
        if machine is None:
            raise UsageError(
                f"{machine_id[:64]!r} is not a machine of this host", hint="boincvm ls shows them"
            )
        try:
            with open_regular(machine.directory.log) as file:
                file.seek(max(file.seek(0, os.SEEK_END) - _MOST_LOG_BYTES, 0))
                data = file.read(_MOST_LOG_BYTES)
        except FileNotFoundError:
            return []  # it was never started
        except OSError as error:
            raise HostError(f"the log of {machine_id} cannot be read: {error}") from error
        lines = data.removesuffix(b"\n").split(b"\n") if data else []
        wanted = max(len(lines) - min(count, _MOST_LOG_LINES), 0)
        return [line.decode("utf-8", "replace") for line in lines[wanted:]]

    def close(self) -> None:
        """Stop watching the shims, which keep running with their machines."""
        for machine in self._machines.values():
            machine.release()


def _check_memory(definition: Definition) -> None:
    """Check that a machine has the memory that its image needs. Raises UsageError.

    A missing or damaged image is not an error here: `start` reports it.
    """
    with (
        suppress(ImageMissingError, ImageDamagedError),
        ImageStore().open_unverified(definition.image) as image,
    ):
        check_memory(definition.memory, image)


def _checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    if len(labels) > _MOST_LABELS:
        raise UsageError(f"a machine has at most {_MOST_LABELS} labels")
    for text in (*labels, *labels.values()):
        if len(text) > 255 or not text.isprintable():
            raise UsageError(f"found {text[:80]!r}, expected a label of at most 255 characters")
    return dict(labels)
