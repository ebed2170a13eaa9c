"""Machines saved on disk: which files belong to a checkpoint, and which checkpoint to use.

    checkpoint-000007.json      the manifest of one checkpoint
    memory-000007, disk-…       files that manifests name; they never change
    ….sav, {…}.vdi              the same of VirtualBox, which chooses their names
    ….vmsn, ….vmem, ….vmdk      the same of VMware
    disk-000008.qcow2, …        files of the running machine; useless to the next one

All are in the machine's directory. A manifest is written once everything that it names is on the
disk. The two newest manifests are kept, so that one remains if the other is damaged or only half
written. docs/checkpoints.md says what each file means after a crash.
"""

import errno
import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from boincvm import __version__, json_value
from boincvm.file_digest import digest_of
from boincvm.host.atomic_files import write_atomically
from boincvm.host.files import open_regular, sync_directory
from boincvm.hypervisor.contract import Checkpoint, FileSeal
from boincvm.job.model import MachineShape
from boincvm.machine.errors import SavedMachineError

SCHEMA = 3
"""Raise it when the meaning of a manifest changes. A field that older ones lack and for which there
is a default, such as the driver's `cpu`, needs no new schema (docs/checkpoints.md)."""
LATEST = 253402300799.0
"""The end of the year 9999, in seconds since 1970: no file of ours is newer."""
GENERATIONS = 2
"""Checkpoints to keep."""
_MOST_BYTES = 1 << 20
_MOST_MANIFESTS = 64
_MOST_FILES = 256
_MANIFEST = re.compile(r"checkpoint-(\d{6,9})\.json")
_DATA = re.compile(
    r"(?:memory|disk)-([0-9]{6,9})(?:\.qcow2|\.vdi)?"
    r"|[0-9A-Za-z{][0-9A-Za-z{}.-]{0,99}\.(?:sav|vdi|vmss|vmsn|vmem|vmdk)"
)
"""Names of checkpoints' files. Whatever a driver writes for one must be named so: any other file
belongs to no checkpoint."""
_LEFTOVER = re.compile(r"\..*\.part|saved\.json")


class SavedTask(NamedTuple):
    """The task whose program was running when the checkpoint was made."""

    number: int
    """The task's number in the job."""
    program: dict[str, object]
    """The program's end of the guest link (guestlink/state.py)."""
    stdin: int
    """Bytes of its standard input that had been read."""
    files: dict[str, int]
    """Sizes of its output files, by path."""
    guest: float
    """CPU seconds that it had used in the guest."""
    wall: float
    """Seconds that it had run."""
    fraction_done: float


class SavedMachine(NamedTuple):
    """One checkpoint, as described by its manifest."""

    checkpoint: Checkpoint
    driver: str
    """The name of the driver that made it."""
    image: str
    """The image's digest, which must not have changed."""
    shape: MachineShape
    """The machine's shape, which must not have changed."""
    link: dict[str, object]
    """The guest link's state (guestlink/state.py)."""
    steps: tuple[int, ...]
    """The tasks that the machine has run so far, by their numbers in the job."""
    task: SavedTask | None
    """The task whose program was running; None between two tasks."""
    made: float = 0.0
    """When it was made, in seconds since 1970."""


class Found(NamedTuple):
    """The result of `find_saved`."""

    saved: SavedMachine | None
    """The newest complete checkpoint."""
    lost: tuple[str, ...]
    """Why newer ones are unusable, one line each."""


def write_saved(directory: Path, saved: SavedMachine) -> None:
    """Write the manifest of a checkpoint whose files are on the disk already.

    Raises OSError, also if the manifest is too large for `find_saved`.
    """
    checkpoint = saved.checkpoint
    table: dict[str, object] = {
        "schema": SCHEMA,
        "boincvm": __version__,
        "number": checkpoint.number,
        "made": saved.made or time.time(),
        "driver": saved.driver,
        "files": {name: seal._asdict() for name, seal in checkpoint.files.items()},
        "machine": dict(checkpoint.machine),
        "image": saved.image,
        "shape": saved.shape._asdict(),
        "link": saved.link,
        "steps": list(saved.steps),
        "task": saved.task and saved.task._asdict(),
    }
    text = json.dumps({**table, "checksum": _checksum(table)}, indent=1)
    if len(text) > _MOST_BYTES or len(checkpoint.files) > _MOST_FILES:
        raise OSError(errno.EFBIG, "the checkpoint's manifest would be too large")
    write_atomically(manifest_path(directory, checkpoint.number), text)


def manifest_path(directory: Path, number: int) -> Path:
    """Return the path of the manifest of the checkpoint with this number."""
    return directory / f"checkpoint-{number:06d}.json"


def find_saved(directory: Path) -> Found:
    """Find the newest checkpoint whose files all exist and are unchanged."""
    lost: list[str] = []
    for number, path in manifests(directory)[:_MOST_MANIFESTS]:
        try:
            saved = read_manifest(path)
            if saved.checkpoint.number != number:
                raise ValueError("its number does not match")
            check_files(directory, saved.checkpoint.files)
        except SavedMachineError as error:
            lost.append(f"checkpoint {number} is unusable: {error.message}")
        except (OSError, ValueError) as error:
            lost.append(f"checkpoint {number} is damaged: {error}")
        else:
            return Found(saved, tuple(lost))
    return Found(None, tuple(lost))


def read_manifest(path: Path) -> SavedMachine:
    """Read a manifest. Raises OSError, ValueError, SavedMachineError for one of a newer boincvm."""
    with BufferedReader(open_regular(path)) as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("its manifest is too large")
    try:
        table = json.loads(data)
        schema = table["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise SavedMachineError(
                f"a newer boincvm made it (schema {schema}, this one knows {SCHEMA})"
            )
        if schema != SCHEMA:
            raise ValueError(f"its schema is {schema!r}, and this boincvm knows {SCHEMA}")
        if table.pop("checksum") != _checksum(table):
            raise ValueError("it differs from what was written")
        return _saved(table)
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ValueError(f"its manifest is invalid: {json_value.fault_of(error)}") from error


def check_files(directory: Path, files: Mapping[str, FileSeal]) -> None:
    """Check that each of `files` matches its seal. Raises ValueError, OSError."""
    for name, seal in files.items():
        path = directory / name
        if not path.is_file() or path.is_symlink():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != seal.size:
            raise ValueError(f"{name} has changed in size")
    for name, seal in files.items():
        if digest_of(directory / name) != seal:
            raise ValueError(f"{name} differs from what was written")


def next_number(directory: Path) -> int:
    """Return a number greater than that of any existing checkpoint or file."""
    names = [path.name for path in directory.iterdir()]
    matches = [_MANIFEST.fullmatch(name) or _DATA.fullmatch(name) for name in names]
    return max((int(match[1]) for match in matches if match and match[1]), default=0) + 1


def remove_unneeded(
    directory: Path,
    *,
    newest: int | None = None,
    keep: int = GENERATIONS,
    in_use: frozenset[str] = frozenset(),
) -> None:
    """Remove old checkpoints, and all files that no remaining one names.

    Keeps the last `keep` checkpoints that are not newer than `newest`, and the files `in_use`.
    Raises OSError.
    """
    found = manifests(directory)
    good = [(number, path) for number, path in found if newest is None or number <= newest]
    needed = set(in_use)
    stays: set[Path] = set()
    for _, path in good:
        try:
            files = read_manifest(path).checkpoint.files
        except (ValueError, SavedMachineError):
            continue  # it would never be used
        if len(stays) < keep:
            needed |= set(files)
            stays.add(path)
    for _, path in found:
        if path not in stays:
            path.unlink(missing_ok=True)
    sync_directory(directory)  # a crash must not bring back a manifest whose files are gone
    for path in directory.iterdir():
        is_data = _DATA.fullmatch(path.name) and path.name not in needed
        if (is_data or _LEFTOVER.fullmatch(path.name)) and not path.is_dir():
            path.unlink(missing_ok=True)


def discard_machine(directory: Path) -> None:
    """Remove everything that a machine has on disk, or whatever is in its directory's place."""
    if directory.is_symlink() or not directory.is_dir():
        with suppress(OSError):
            directory.unlink()
    else:
        shutil.rmtree(directory, ignore_errors=True)


def manifests(directory: Path) -> list[tuple[int, Path]]:
    """Return the number and path of each checkpoint's manifest, newest first."""
    if not directory.is_dir():
        return []
    found = [(_MANIFEST.fullmatch(path.name), path) for path in directory.iterdir()]
    return sorted(((int(match[1]), path) for match, path in found if match), reverse=True)


def _checksum(table: Mapping[str, object]) -> str:
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def _saved(table: dict[str, object]) -> SavedMachine:
    """Return the contents of a manifest's table. Raises ValueError, KeyError, TypeError."""
    task, files, steps = table["task"], table["files"], table["steps"]
    shape, machine, link = table["shape"], table["machine"], table["link"]
    for part in (files, shape, machine, link):
        if not isinstance(part, dict):
            raise TypeError(part)
    if not isinstance(steps, list) or len(files) > _MOST_FILES:  # type: ignore[arg-type]
        raise TypeError(steps)
    return SavedMachine(
        checkpoint=Checkpoint(json_value.whole(table["number"]), _seals(files), machine),  # type: ignore[arg-type]
        driver=json_value.text(table["driver"]),
        image=json_value.text(table["image"]),
        shape=_shape(shape),  # type: ignore[arg-type]
        link=link,  # type: ignore[arg-type]
        steps=tuple(map(json_value.whole, steps)),
        task=None if task is None else _task(task),
        made=json_value.number(table["made"], LATEST),
    )


def _seals(files: Mapping[str, object]) -> dict[str, FileSeal]:
    seals: dict[str, FileSeal] = {}
    for name, seal in files.items():
        if not _DATA.fullmatch(name) or not isinstance(seal, dict):
            raise ValueError(f"it names {name[:80]!r}, which is not a checkpoint's file")
        seals[name] = FileSeal(json_value.whole(seal["size"]), json_value.text(seal["digest"]))
    return seals


def _task(table: object) -> SavedTask:
    if not isinstance(table, dict):
        raise TypeError(table)
    task = SavedTask(**table)
    for number in (task.guest, task.wall, task.fraction_done):
        json_value.number(number, sys.float_info.max)
    if not isinstance(task.program, dict) or not isinstance(task.files, dict):
        raise TypeError("a table is missing or invalid")
    for size in (task.number, task.stdin, *task.files.values()):
        json_value.whole(size)
    return task


def _shape(table: Mapping[str, object]) -> MachineShape:
    if table.keys() != set(MachineShape._fields):
        raise TypeError("a machine's shape")
    disk, network = table["disk"], table["network"]
    if not isinstance(network, bool):
        raise TypeError(network)
    return MachineShape(
        image=json_value.text(table["image"]),
        memory=json_value.whole(table["memory"]),
        cpus=json_value.whole(table["cpus"]),
        disk=None if disk is None else json_value.whole(disk),
        network=network,
    )
