"""Create, find, start and remove the machines of this host."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
    MachineStateError,
    UsageError,
    host_error,
)
from boincvm.host.files import open_regular
from boincvm.hypervisor.disks import check_size
from boincvm.hypervisor.qcow2 import DiskRefusedError, check_disk
from boincvm.image.names import check_image_name
from boincvm.image.store import ImageStore
from boincvm.job import values
from boincvm.job.values import UnexpectedValueError
from boincvm.machine.admission import check_fits_host
from boincvm.machine.spec import check_memory
from boincvm.portable_names import PORTABLE_HINT, is_portable_part
from boincvm.shim.machine_directory import Definition, MachineDirectory, Status
from boincvm.shim.snapshots import Snapshots
from boincvm.side_thread import in_side_thread

MOST = 1000
LONGEST_SCRIPT = 64 << 10
"""Bytes of a first-boot script, which is one argument of a program."""
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
        self._clones = 0
        """So many are being made."""

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
        if machine.status.image:  # it may be of an older version, or from a backup
            directory.keep_image(machine.definition, machine.status.image)

    def find(self, machine_id: str) -> LocalMachine | None:
        return self._machines.get(machine_id)

    def required(self, machine_id: str) -> LocalMachine:
        """Return a machine of this host. Raises UsageError."""
        machine = self._machines.get(machine_id)
        if machine is None:
            raise UsageError(
                f"{machine_id[:64]!r} is not a machine of this host", hint="boincvm ls shows them"
            )
        return machine

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
        autostart: bool = False,
        first_boot: str = "",
    ) -> LocalMachine:
        """Create a machine, which is powered off.

        Raises UsageError, ImageMissingError, NotEnoughRoomError, OSError.
        """
        machine_id = self._check_new(name)
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
                autostart,
                _checked_script(first_boot),
            )
        except UnexpectedValueError as error:
            raise UsageError(str(error)) from error
        check_fits_host(definition.memory, definition.cpus)
        _check_image(definition)
        directory = MachineDirectory(self._directory / machine_id)
        directory.make(definition, self._bus_for(machine_id))
        return self._add(directory)

    async def clone(self, source: LocalMachine, name: str) -> LocalMachine:
        """Create a machine like `source`, which must be shut down, with a copy of its disk.

        Raises UsageError, HostError, HostDiskFullError.
        """
        machine_id = self._check_new(name)
        if source.status.saved is not None:
            raise MachineStateError(
                f"the machine {source.id} is saved; only a disk that is not in use can be copied",
                hint=f"start it and shut it down: boincvm start {source.id},"
                f" boincvm stop {source.id}",
            )
        definition = source.definition._replace(id=machine_id, made=time.time())
        directory = MachineDirectory(self._directory / machine_id)
        with self._counted_clone(), source.directory.held():
            status = source.directory.status()
            if status.layers:  # otherwise it has never been up, and there is no disk to copy
                _check_was_shut_down(source.id, status)
            try:
                await in_side_thread(
                    directory.make, definition, self._bus_for(machine_id), source.directory
                )
                try:
                    if status.image:  # a crash before that is made up for by `load`
                        await in_side_thread(directory.keep_image, definition, status.image)
                except BaseException:
                    shutil.rmtree(directory.directory, ignore_errors=True)
                    raise
            except OSError as error:
                raise host_error(f"the disk of {source.id} cannot be copied", error) from error
        return self._add(directory)

    async def make_image(self, machine: LocalMachine, name: str, *, force: bool = False) -> str:
        """Make an image of the disk of a machine that was shut down; return its digest.

        `force`: replace an image `name` that exists. Raises UsageError, HostError,
        HostDiskFullError, ImageBuildError.
        """
        _check_image_name(name, force=force)
        status = machine.status
        if status.saved is not None:
            raise MachineStateError(
                f"the machine {machine.id} is saved; only a disk that is not in use can be copied",
                hint=f"start it and shut it down: boincvm start {machine.id},"
                f" boincvm stop {machine.id}",
            )
        if not status.layers:
            raise MachineStateError(
                f"the machine {machine.id} has not run, so it is as its image"
                f" {machine.definition.image}",
                hint=f"boincvm start {machine.id}, and change it",
            )
        return await in_side_thread(_held_image_of, machine.directory, machine.definition, name)

    def _check_new(self, name: str) -> str:
        """Return the id of a machine that is to be created. Raises UsageError."""
        if len(self._machines) + self._clones >= MOST:
            raise UsageError(f"there are {MOST} machines", hint="remove some first")
        if not is_portable_part(check_id(name)):  # older ones keep their names
            raise UsageError(f"found {name!r}, expected a machine's name", hint=PORTABLE_HINT)
        return name

    @contextmanager
    def _counted_clone(self) -> Iterator[None]:
        """Count a clone among the machines while it is made, which takes a while."""
        self._clones += 1
        try:
            yield
        finally:
            self._clones -= 1

    def _add(self, directory: MachineDirectory) -> LocalMachine:
        machine = LocalMachine(directory, self._changed)
        self._machines[machine.id] = machine
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

    async def release_image(self, machine: LocalMachine) -> None:
        """Let the store remove the image of a machine that was removed, if nobody else needs it."""
        with suppress(OSError, BoincvmError):  # the next change of the store does it
            await in_side_thread(ImageStore().release, machine.directory.directory)

    def discard(self, machine: LocalMachine) -> None:
        """Discard a machine's saved state: it will boot. Raises UsageError, OSError."""
        with machine.directory.held():
            saved = machine.status.saved
            machine.set_status(
                machine.status._replace(
                    state=VmState.POWERED_OFF, saved=None, why="", was_shut_down=False
                )
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
        machine = self.required(machine_id)
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


def _check_image(definition: Definition) -> None:
    """Check that a machine's image exists, and that it has the memory and disk that this needs.

    A damaged image is not an error here: `start` reports it. Raises UsageError, ImageMissingError.
    """
    store = ImageStore()
    with suppress(ImageDamagedError):
        store.digest_of(definition.image)
    with (
        suppress(ImageMissingError, ImageDamagedError),  # it may be replaced just now
        store.open_unverified(definition.image) as image,
    ):
        check_memory(definition.memory, image)
        if definition.disk is not None:
            with suppress(DiskRefusedError, OSError):  # as above
                check_size(definition.disk, check_disk(image.root))


def _check_image_name(name: str, *, force: bool) -> None:
    """Check that a new image may have this name. Raises UsageError."""
    check_image_name(name)
    if not force and name in ImageStore().names():
        raise UsageError(
            f"there is an image {name} already",
            hint="choose another name, or replace it with --force: machines that have begun with"
            " it keep what it was",
        )


def _check_was_shut_down(machine_id: str, status: Status) -> None:
    """Check that nothing that its guest has written is missing on a disk.

    Raises MachineStateError.
    """
    if not status.state.is_off or not status.was_shut_down:
        why = f" (it is {status.state.label}: {status.why})" if status.why else ""
        raise MachineStateError(
            f"the machine {machine_id} was not shut down by boincvm stop{why}, so its file system"
            " may be inconsistent",
            hint=f"start it, check it, and shut it down: boincvm start"
            f" {machine_id}, boincvm stop {machine_id}",
        )


def _held_image_of(directory: MachineDirectory, definition: Definition, name: str) -> str:
    """Make an image while the machine cannot start, even if nobody waits for it any more."""
    with directory.held(hint=f"shut it down first: boincvm stop {definition.id}"):
        _check_was_shut_down(definition.id, directory.status())
        return _image_of(directory, definition, name)


def _image_of(directory: MachineDirectory, definition: Definition, name: str) -> str:
    from boincvm.image.from_disk import image_of_disk  # few machines become images

    store, status = ImageStore(), directory.status()
    try:
        opened = store.open(definition.image, status.image)
    except ImageMissingError as error:
        raise HostError(
            f"the image {definition.image} has changed since the disk of {definition.id} was made",
            hint="restore the previous image",
        ) from error
    with opened as image:
        layers = [directory.disk / layer for layer in status.layers]
        return image_of_disk(store, name, image, layers, definition.id).digest


def _checked_script(script: str) -> str:
    size = len(values.any_text(script).encode(errors="replace"))
    if size > LONGEST_SCRIPT:
        raise UsageError(
            f"the first-boot script has {size} bytes, expected at most {LONGEST_SCRIPT}",
            hint="copy a longer one into the machine: boincvm cp",
        )
    return script


def _checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    if len(labels) > _MOST_LABELS:
        raise UsageError(f"a machine has at most {_MOST_LABELS} labels")
    for text in (*labels, *labels.values()):
        if len(text) > 255 or not text.isprintable():
            raise UsageError(f"found {text[:80]!r}, expected a label of at most 255 characters")
    return dict(labels)
