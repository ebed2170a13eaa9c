"""The directory on disk of one of the controller's machines.

    machine.json     what the machine is; written once, by the controller
    bus.json         how its shim connects to the bus, with a passcode (0600); by the controller
    state.json       its state; written by its shim, and by the controller while no shim runs
    snapshots.json   names and descriptions of checkpoints in disk/; like state.json
    lock             held by the shim while it runs, and by the controller during changes
    shim.log         the shim's log
    disk/            the hypervisor's files, and the checkpoints (machine/saved_machine.py)
    commands.json    commands that were running when the machine was saved; like state.json
    spool/           files in transfer; of no use to the next shim

The directory has mode 0700. After a crash `lock` decides: if state.json says "running" while
nobody holds the lock, the shim was killed, and its machine with it.
"""

import asyncio
import errno
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from boincvm import json_value
from boincvm.bus.broker_address import BrokerAddress
from boincvm.bus.dialects import DIALECTS
from boincvm.controller.protocol.guest import check_id
from boincvm.controller.protocol.vm_state import VmState
from boincvm.errors import HostError, UsageError, host_error
from boincvm.host.atomic_files import write_atomically
from boincvm.host.files import (
    copy_range,
    open_descriptor,
    open_regular,
    sync_directory,
    sync_file,
)
from boincvm.host.filetree import extents
from boincvm.host.lock_queue import wait_for_lock
from boincvm.host.locks import try_lock
from boincvm.host.own_files import open_own
from boincvm.image.store import ImageStore
from boincvm.job import values
from boincvm.job.model import MachineShape
from boincvm.json_value import fault_of

_STATE = "state.json"
_COMMANDS = "commands.json"
_SNAPSHOTS = "snapshots.json"
_MOST_BYTES = {_COMMANDS: 1 << 30, _SNAPSHOTS: 1 << 26}
_LOCK_LIMIT = 5.0
"""Seconds that a new shim waits for the lock."""
_LONGEST = 500
_MOST_PROCESSES = 1 << 22


class Definition(NamedTuple):
    """What a machine is; it never changes."""

    id: str
    image: str
    memory: int
    """Bytes."""
    cpus: int
    disk: int | None
    """Bytes; None for the image's own size."""
    network: bool
    display: bool
    labels: Mapping[str, str]
    made: float
    """Seconds since 1970."""
    autostart: bool = False
    """Whether the controller starts it after each boot of the host."""
    first_boot: str = ""
    """A shell script that it runs before it is up for the first time; empty for none."""

    @property
    def shape(self) -> MachineShape:
        """Return what the hypervisor must provide."""
        return MachineShape(self.image, self.memory, self.cpus, self.disk, self.network)


class Status(NamedTuple):
    """The state of a machine."""

    state: VmState = VmState.POWERED_OFF
    why: str = ""
    image: str = ""
    """Digest of the image beneath its disk; empty before the first start."""
    layers: tuple[str, ...] = ()
    """The layers of its disk."""
    saved: int | None = None
    """Number of the checkpoint to resume from; None if it will boot."""
    instance: str = ""
    """The id of its guest's current life."""
    started_at: float | None = None
    """Seconds since 1970."""
    at: float = 0.0
    """When it was written, in seconds since 1970."""
    pid: int = 0
    """The shim's process id."""
    was_shut_down: bool = False
    """Its guest wrote all buffers to the disk before it ended, as `stop` asks it to; so it stays if
    the next start fails before the guest begins."""


class MachineDirectory:
    """The directory of one machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.disk = directory / "disk"
        self.spool = directory / "spool"
        self.log = directory / "shim.log"

    def make(
        self,
        definition: Definition,
        bus: BrokerAddress,
        source: "MachineDirectory | None" = None,
    ) -> None:
        """Make the directory, with a copy of the disk of `source`, whose lock the caller holds.

        Raises UsageError if the machine exists already, HostError, OSError.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise UsageError(
                f"there is already a machine {definition.id}", hint="boincvm ls shows it"
            ) from None
        try:
            self.disk.mkdir(mode=0o700)
            self.write_bus(bus)
            status = Status() if source is None else self._copy_disk(source)
            self.write_status(status)
            self._write(
                "machine.json", definition._asdict()
            )  # written last: it makes the directory valid
            sync_directory(self.directory.parent)
        except BaseException:
            shutil.rmtree(self.directory, ignore_errors=True)
            raise

    def _copy_disk(self, source: "MachineDirectory") -> Status:
        """Copy the layers of another machine's disk; return the status that goes with them.

        Raises HostError, OSError.
        """
        status = source.status()
        for name in status.layers:
            _copy_file(source.disk / name, self.disk / name)
        self.sync_disk(status.layers)
        return Status(image=status.image, layers=status.layers, was_shut_down=status.was_shut_down)

    def definition(self) -> Definition:
        """Read the definition. Raises HostError."""
        table = self._read("machine.json")
        try:
            return Definition(
                id=check_id(table["id"]),
                image=values.image_name(table["image"]),
                memory=json_value.whole(table["memory"]),
                cpus=values.cpus(table["cpus"]),
                disk=None if table["disk"] is None else json_value.whole(table["disk"]),
                network=values.flag(table["network"]),
                display=values.flag(table["display"]),
                labels=_texts(table["labels"]),
                made=json_value.number(table["made"]),
                autostart=values.flag(table.get("autostart", False)),
                first_boot=values.any_text(table.get("first_boot", "")),
            )
        except (KeyError, ValueError, TypeError, UsageError) as error:
            raise self._damaged("machine.json", error) from error

    def bus(self) -> BrokerAddress:
        """Read the broker's address. Raises HostError."""
        table = self._read("bus.json")
        try:
            words = _texts({name: value for name, value in table.items() if name != "port"})
            bus = BrokerAddress(**words, port=json_value.whole(table["port"]))
        except (KeyError, ValueError, TypeError) as error:
            raise self._damaged("bus.json", error) from error
        if bus.dialect not in DIALECTS:
            raise self._damaged("bus.json", ValueError("its dialect is unknown"))
        return bus

    def write_bus(self, bus: BrokerAddress) -> None:
        """Write the broker's address. Raises OSError."""
        self._write("bus.json", bus._asdict())

    def status(self) -> Status:
        """Read the status that was written last. Raises HostError."""
        table = self._read("state.json")
        try:
            saved, started = table["saved"], table["started_at"]
            layers = table["layers"]
            if not isinstance(layers, list):
                raise TypeError(layers)
            return Status(
                state=VmState(str(table["state"])),
                why=str(table["why"]),
                image=str(table["image"]),
                layers=tuple(map(str, layers)),
                saved=None if saved is None else json_value.whole(saved),
                instance=str(table["instance"]),
                started_at=None if started is None else json_value.number(started),
                at=json_value.number(table["at"]),
                pid=json_value.whole(table["pid"], _MOST_PROCESSES),
                was_shut_down=values.flag(table.get("was_shut_down", False)),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise self._damaged("state.json", error) from error

    def write_status(self, status: Status) -> None:
        """Write the status. Raises OSError.

        Only the holder of the lock may: another's would bring an older state back.
        """
        self._write(_STATE, status._replace(at=time.time())._asdict())

    def snapshots(self) -> list[dict[str, object]]:
        """Read the snapshots, as tables of snapshots.py. Raises HostError."""
        return self._tables(_SNAPSHOTS, "snapshots")

    def write_snapshots(self, tables: list[dict[str, object]]) -> None:
        """Write the snapshots. Raises OSError."""
        self._write(_SNAPSHOTS, {"snapshots": tables})

    def commands(self) -> list[dict[str, object]]:
        """Read the commands of node/commands.py, as they were when the machine was saved.

        Raises HostError.
        """
        return self._tables(_COMMANDS, "commands")

    def write_commands(self, tables: list[dict[str, object]]) -> None:
        """Write the commands; an empty list removes them. Raises OSError."""
        if tables:
            self._write(_COMMANDS, {"commands": tables})
        else:
            (self.directory / _COMMANDS).unlink(missing_ok=True)

    def keep_image(self, definition: Definition, digest: str) -> None:
        """Have the store keep the image beneath the disk, whatever becomes of its name.

        Raises OSError, HostError.
        """
        ImageStore().keep(digest, definition.image, self.directory, definition.id)

    def sync_disk(self, layers: Iterable[str]) -> None:
        """Flush the disk's layers, so that they survive a power failure. Raises OSError."""
        for name in layers:
            sync_file(self.disk / name)
        sync_directory(self.disk)

    def _write(self, name: str, table: Mapping[str, object]) -> None:
        write_atomically(self.directory / name, json.dumps(table, indent=1))
        if name == "bus.json":
            (self.directory / name).chmod(0o600)

    def _tables(self, name: str, key: str) -> list[dict[str, object]]:
        try:
            found = self._read(name).get(key)
        except FileNotFoundError:
            return []
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self._damaged(name, TypeError("not a list of objects"))
        return found

    def _read(self, name: str) -> dict[str, object]:
        most = _MOST_BYTES.get(name, 1 << 20)
        try:
            with BufferedReader(open_own(self.directory / name)) as file:
                data = file.read(most + 1)
            if len(data) > most:
                raise ValueError("it is too large")
            table = json.loads(data)
        except FileNotFoundError:
            if name in (_SNAPSHOTS, _COMMANDS):
                raise
            raise HostError(
                f"there is no machine in {self.directory}", hint="boincvm ls lists the machines"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(name, error) from error
        if not isinstance(table, dict):
            raise self._damaged(name, TypeError("no object"))
        return table

    def _damaged(self, name: str, error: Exception) -> HostError:
        return HostError(
            f"{str(self.directory / name)!r} is damaged: {fault_of(error)}"[:_LONGEST],
            hint="restore the file, or remove the directory that it is in",
        )

    # The lock.

    def is_locked(self) -> bool:
        """Return True if a shim runs, or somebody holds the lock for a moment."""
        descriptor = self._open_lock()
        try:
            return not try_lock(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def held(
        self, hint: str = "stop it first: boincvm stop, or boincvm stop --now"
    ) -> Iterator[int]:
        """Hold the lock within the block, and yield its descriptor.

        Raises UsageError, with `hint`, if somebody else holds it.
        """
        descriptor = self._open_lock()
        try:
            if not try_lock(descriptor):
                raise self._is_running(hint)
            yield descriptor
        finally:
            os.close(descriptor)

    async def hold(self) -> int:
        """Wait for the lock, which a controller may have for a moment; return its descriptor.

        Raises UsageError if a shim has it, HostError.
        """
        try:
            async with asyncio.timeout(_LOCK_LIMIT):
                return await wait_for_lock(self.directory / "lock")
        except TimeoutError:
            raise self._is_running("boincvm ls shows its state") from None
        except OSError as error:
            raise host_error(f"the machine in {self.directory} cannot be locked", error) from error

    def _is_running(self, hint: str) -> UsageError:
        return UsageError(f"the machine {self.directory.name} is running", hint=hint)

    def _open_lock(self) -> int:
        try:
            return open_descriptor(
                self.directory / "lock", "c+", follow_links=False, permissions=0o600
            )
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise HostError(f"the machine in {self.directory} has gone") from error
            raise host_error(f"the machine in {self.directory} cannot be locked", error) from error


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file without its holes, by sharing its blocks where the disk can. Raises OSError."""
    with (
        open_regular(source) as file,
        os.fdopen(open_descriptor(target, "x", permissions=0o600), "wb") as copy,
    ):
        size = os.fstat(file.fileno()).st_size
        os.truncate(copy.fileno(), size)
        for offset, length in extents(file.fileno(), size):
            end = offset + length
            while offset < end:
                done = copy_range(file.fileno(), offset, copy.fileno(), offset, end - offset)
                if done == 0:
                    raise OSError(errno.EIO, "the file became shorter while it was copied")
                offset += done


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise TypeError(value)
    return value
