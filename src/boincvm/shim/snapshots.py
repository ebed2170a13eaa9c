"""A machine's snapshots: named checkpoints in its directory."""

import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from boincvm import json_value
from boincvm.errors import HostError, UsageError
from boincvm.json_value import Json, fault_of
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.saved_machine import (
    SavedMachine,
    check_files,
    manifest_path,
    manifests,
    read_manifest,
    remove_unneeded,
)
from boincvm.portable_names import is_portable_part
from boincvm.shim.machine_directory import MachineDirectory

MOST = 64
_LONGEST = 255
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EVERY = 1 << 30


class MachineSnapshot(NamedTuple):
    """A named checkpoint of a machine."""

    name: str
    number: int
    """Number of the checkpoint."""
    description: str
    made: float
    """Seconds since 1970."""
    size: int
    """Bytes of its files, some of which other snapshots may share."""
    programs: tuple[dict[str, object], ...] = ()
    """States of the programs that ran in the guest."""

    def table(self) -> dict[str, Json]:
        """Return what users are shown."""
        return {
            "name": self.name,
            "description": self.description,
            "made": self.made,
            "size": self.size,
        }


class Snapshots:
    """The snapshots of the machine at `directory`. The caller must prevent concurrent changes."""

    def __init__(self, directory: MachineDirectory) -> None:
        self._directory = directory

    def all(self) -> list[MachineSnapshot]:
        """Return all snapshots, oldest first. Raises HostError."""
        found = []
        for table in self._directory.snapshots():
            try:
                found.append(_snapshot(table))
            except (KeyError, ValueError, TypeError) as error:
                raise HostError(
                    f"snapshots.json is damaged: {fault_of(error)}"[:500],
                    hint="restore the file, or remove it and with it all snapshots",
                ) from error
        return found

    def find(self, name: str | None) -> MachineSnapshot:
        """Return the snapshot with that name, by default the newest. Raises UsageError."""
        found = self.all()
        wanted = [snapshot for snapshot in found if name in (None, snapshot.name)]
        if not wanted:
            known = ", ".join(snapshot.name for snapshot in found) or "none yet"
            raise UsageError(
                f"the machine has no snapshot {name or 'at all'}", hint=f"there are: {known}"
            )
        return wanted[-1]

    def choose_name(self, name: str | None, description: str) -> str:
        """Return a name for a new snapshot, `name` if it is given. Raises UsageError."""
        found = {snapshot.name for snapshot in self.all()}
        if len(found) >= MOST:
            raise UsageError(f"the machine has {MOST} snapshots", hint="remove one first")
        if len(description) > _LONGEST or not description.isprintable():
            raise UsageError(f"a description is one line of at most {_LONGEST} characters")
        if name is None:
            number = len(found) + 1
            while f"snapshot-{number}" in found:
                number += 1
            return f"snapshot-{number}"
        # A snapshot that has been made has its name, but hosts differ in whether they can store it.
        if _NAME.fullmatch(name) is None or not is_portable_part(name):
            raise UsageError(
                f"found {name[:80]!r}, expected a snapshot's name:"
                " up to 64 of A-Z a-z 0-9 . _ -, a letter or digit first, no dot at the end,"
                " and not a device of Windows' such as NUL"
            )
        if name in found:
            raise UsageError(
                f"there is already a snapshot {name}", hint="choose another name, or remove it"
            )
        return name

    def add(
        self, name: str, description: str, saved: SavedMachine, programs: list[dict[str, object]]
    ) -> None:
        """Add a snapshot whose checkpoint is on disk already. Raises OSError."""
        size = sum(seal.size for seal in saved.checkpoint.files.values())
        made = MachineSnapshot(name, saved.checkpoint.number, description, time.time(), size)
        table = {**made._asdict(), "programs": programs}
        self._directory.write_snapshots([*self._directory.snapshots(), table])

    def remove(self, name: str, in_use: frozenset[str], saved: int | None) -> None:
        """Remove a snapshot and the files that nothing else needs.

        Files of the running machine and of the saved one stay. Raises UsageError, OSError.
        """
        self.find(name)
        tables = [table for table in self._directory.snapshots() if table.get("name") != name]
        self._directory.write_snapshots(tables)
        self.sweep(in_use, saved)

    def sweep(self, in_use: frozenset[str], saved: int | None = None) -> None:
        """Remove all checkpoints but those of snapshots and the machine's saved state.

        This removes former saved states and leftovers of killed processes. The files that make up
        the machine's disk according to state.json stay as well. Raises HostError, OSError.
        """
        needed = {saved, *(snapshot.number for snapshot in self.all())}
        for number, path in manifests(self._directory.disk):
            if number not in needed:
                path.unlink(missing_ok=True)
        in_use |= set(self._directory.status().layers)
        remove_unneeded(self._directory.disk, keep=_EVERY, in_use=in_use)


def _snapshot(table: Mapping[str, object]) -> MachineSnapshot:
    """Decode a snapshot. Raises KeyError, ValueError, TypeError."""
    name, description, programs = table["name"], table["description"], table.get("programs", [])
    if not isinstance(name, str) or not isinstance(description, str):
        raise TypeError("a name is not a string")
    if not isinstance(programs, list) or not all(isinstance(item, dict) for item in programs):
        raise TypeError("invalid programs")
    number, size, made = table["number"], table["size"], table["made"]
    return MachineSnapshot(
        name,
        json_value.whole(number),
        description,
        json_value.number(made),
        json_value.whole(size),
        tuple(programs),
    )


def read_checkpoint(directory: MachineDirectory, number: int) -> SavedMachine:
    """Read a complete checkpoint. Raises SavedMachineError."""
    try:
        saved = read_manifest(manifest_path(directory.disk, number))
        check_files(directory.disk, saved.checkpoint.files)
    except (OSError, ValueError) as error:
        raise SavedMachineError(f"checkpoint {number} is damaged: {error}") from error
    return saved
