"""A machine's snapshots: checkpoints in its directory that have a name."""

import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from boincvm.errors import HostError, UsageError
from boincvm.json_value import LARGEST, Json, fault_of
from boincvm.machine.errors import SavedMachineError
from boincvm.machine.saved_machine import (
    SavedMachine,
    check_files,
    manifest_path,
    manifests,
    read_manifest,
    remove_unneeded,
)
from boincvm.shim.machine_directory import MachineDirectory

MOST = 64
_LONGEST = 255
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EVERY = 1 << 30


class Snapshot(NamedTuple):
    """number: of the checkpoint. made: seconds since 1970. size: bytes of its files, of which
    other snapshots may have some too. programs: those that ran in the guest then."""

    name: str
    number: int
    description: str
    made: float
    size: int
    programs: tuple[dict[str, object], ...] = ()

    def table(self) -> dict[str, Json]:
        """For people."""
        return {
            "name": self.name,
            "description": self.description,
            "made": self.made,
            "size": self.size,
        }


class Snapshots:
    """Of the machine at `place`. The caller sees to it that nobody else changes them."""

    def __init__(self, place: MachineDirectory) -> None:
        self._place = place

    def all(self) -> list[Snapshot]:
        """The oldest one first. Raises HostError."""
        found = []
        for table in self._place.snapshots():
            try:
                found.append(_snapshot(table))
            except (KeyError, ValueError, TypeError) as error:
                raise HostError(
                    f"snapshots.json is damaged: {fault_of(error)}"[:500],
                    hint="restore the file, or remove it, and with it all snapshots",
                ) from error
        return found

    def find(self, name: str | None) -> Snapshot:
        """The one with that name; the newest where there is none. Raises UsageError."""
        found = self.all()
        wanted = [one for one in found if name in (None, one.name)]
        if not wanted:
            known = ", ".join(one.name for one in found) or "none yet"
            raise UsageError(
                f"the machine has no snapshot {name or 'at all'}", hint=f"there are: {known}"
            )
        return wanted[-1]

    def choose_name(self, name: str | None, description: str) -> str:
        """For a new one. Raises UsageError."""
        found = {one.name for one in self.all()}
        if len(found) >= MOST:
            raise UsageError(f"the machine has {MOST} snapshots", hint="remove one first")
        if len(description) > _LONGEST or not description.isprintable():
            raise UsageError(f"a description is one line of at most {_LONGEST} characters")
        if name is None:
            number = len(found) + 1
            while f"snapshot-{number}" in found:
                number += 1
            return f"snapshot-{number}"
        if _NAME.fullmatch(name) is None:
            raise UsageError(
                f"found {name[:80]!r}, expected a snapshot's name:"
                " up to 64 of A-Z a-z 0-9 . _ -, a letter or digit first"
            )
        if name in found:
            raise UsageError(
                f"there is a snapshot {name} already", hint="choose another name, or remove it"
            )
        return name

    def add(
        self, name: str, description: str, saved: SavedMachine, programs: list[dict[str, object]]
    ) -> None:
        """Its checkpoint is on the disk already. Raises OSError."""
        size = sum(seal.size for seal in saved.checkpoint.files.values())
        made = Snapshot(name, saved.checkpoint.number, description, time.time(), size)
        table = {**made._asdict(), "programs": programs}
        self._place.write_snapshots([*self._place.snapshots(), table])

    def remove(self, name: str, in_use: frozenset[str], saved: int | None) -> None:
        """And the files that nothing else needs: not the machine that runs, nor the saved one.
        Raises UsageError, OSError."""
        self.find(name)
        tables = [one for one in self._place.snapshots() if one.get("name") != name]
        self._place.write_snapshots(tables)
        self.sweep(in_use, saved)

    def sweep(self, in_use: frozenset[str], saved: int | None = None) -> None:
        """Removes all checkpoints but those of snapshots and the one where the machine is saved:
        former saved states, and what somebody has left who was killed. The files that are the
        machine's disk by state.json stay, too. Raises HostError, OSError."""
        needed = {saved, *(one.number for one in self.all())}
        for number, path in manifests(self._place.disk):
            if number not in needed:
                path.unlink(missing_ok=True)
        in_use |= set(self._place.status().layers)
        remove_unneeded(self._place.disk, kept=_EVERY, in_use=in_use)


def _snapshot(table: Mapping[str, object]) -> Snapshot:
    """Raises KeyError, ValueError, TypeError."""
    name, description, programs = table["name"], table["description"], table.get("programs", [])
    if not isinstance(name, str) or not isinstance(description, str):
        raise TypeError("a name that is no text")
    if not isinstance(programs, list) or not all(isinstance(one, dict) for one in programs):
        raise TypeError("programs that are none")
    number, size, made = table["number"], table["size"], table["made"]
    for one in (number, size):
        if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one <= LARGEST:
            raise TypeError("a number that is none")
    if not isinstance(made, int | float) or not 0 <= made <= LARGEST:
        raise TypeError("a time that is none")
    return Snapshot(name, number, description, float(made), size, tuple(programs))  # type: ignore[arg-type]


def read_checkpoint(place: MachineDirectory, number: int) -> SavedMachine:
    """Found whole. Raises SavedMachineError."""
    try:
        saved = read_manifest(manifest_path(place.disk, number))
        check_files(place.disk, saved.checkpoint.files)
    except (OSError, ValueError) as error:
        raise SavedMachineError(f"checkpoint {number} is damaged: {error}") from error
    return saved
