"""A snapshot: a job with its saved machines in one file, to continue elsewhere or be stored.

A gzip-compressed tar. First comes `snapshot.json`, which describes the snapshot and holds the size
and digest of every file; then the files, by their names in the job's directory. There are no
directories, links or owners.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import re
import stat
import tarfile
import time
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from boincvm import __version__, json_value
from boincvm.boinc.init_data import InitDataError, read_init_data
from boincvm.boinc.soft_link import SoftLinkError, resolve
from boincvm.byte_text import decoded
from boincvm.errors import (
    HostError,
    InputFileError,
    OutputFileError,
    host_error,
)
from boincvm.file_digest import digest_of
from boincvm.host.atomic_files import replacement
from boincvm.host.files import open_descriptor
from boincvm.host.filetree import set_time
from boincvm.hypervisor.contract import FileSeal
from boincvm.hypervisor.registry import BUILT_IN, find_driver
from boincvm.machine.host_capacity import check_fits
from boincvm.machine.saved_machine import LATEST, SavedMachine, find_saved, manifest_path
from boincvm.tar_reader import TarError, TarReader, pax_time
from boincvm.tree_entries import clamp_time

SCHEMA = 1
TABLE = "snapshot.json"
MACHINES = "boincvm-machine-*"
NOT_OURS = frozenset(
    {
        *("boincvm.sock", "stderr.txt", "init_data.xml", "boinc_lockfile", "boinc_mmap_file"),
        *("boinc_finish_called", "boinc_temporary_exit", "boinc_setup_complete"),
    }
)
"""Files that tell a running job where it is and who controls it; no snapshot contains them."""
_MACHINE = re.compile(r"boincvm-machine-[A-Za-z0-9._-]{0,199}[A-Za-z0-9_-]")
_MACHINE_FILE = re.compile(r"checkpoint-\d{6,9}\.json|memory-\d{6,9}|disk-\d{6,9}\.qcow2", re.ASCII)
_LONGEST_NAME = 255
_LONGEST_VALUE = 255
_LARGEST_TABLE = 1 << 20
_MOST_FILES = 10_000
_CHUNK = 1 << 20
_LEVEL = 1
"""Compression level. Higher ones take far longer and save little of a machine's memory."""


class JobSnapshot(NamedTuple):
    """What a snapshot says about itself."""

    files: dict[str, FileSeal]
    machines: list[dict[str, object]]
    """For each machine the name of its directory, its image's digest, and the driver's table."""
    architecture: str
    made: float


def read_snapshot(path: Path) -> JobSnapshot:
    """Return what the file `path` says about itself. Raises InputFileError.

    The files in it are not read.
    """
    with _opened(path) as archive:
        return _read_table(archive, path)


def read_all(
    path: Path, directory: Path | None = None, *, only: Collection[str] | None = None
) -> JobSnapshot:
    """Read and verify the whole snapshot, and extract it into `directory` if that is given.

    `directory` is new. `only`: the names of the files to extract; None for all. Raises
    InputFileError if anything differs from what the file says, HostDiskFullError, HostError.
    """
    with _opened(path) as archive:
        snapshot = _read_table(archive, path)
        if directory is not None:
            _check_room(directory, snapshot, only)
        left = dict(snapshot.files)
        try:
            for member in archive:
                name = decoded(member.name)
                seal = left.pop(name, None)
                if seal is None or member.kind != "file" or member.size != seal.size:
                    raise damaged(path, f"{name[:80]!r} does not belong in it")
                is_selected = only is None or name in only
                target = directory if is_selected else None
                _read_member(archive, name, seal, path, target, member.mtime)
        except TarError as error:
            raise damaged(path, str(error)) from error
    if left:
        raise damaged(path, f"{next(iter(left))!r} is missing")
    return snapshot


class _Unpacked:
    """The content of a gzip stream; damaged data raises TarError."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = gzip.GzipFile(fileobj=stream)

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TarError(f"its compressed data is damaged: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[TarReader]:
    """Open the snapshot `path`. Raises InputFileError."""
    try:
        # A FIFO that nobody writes to must not block us forever.
        descriptor = open_descriptor(path, wait=False)
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path} cannot be read: {error}") from error
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputFileError(f"{path} is not a regular file")
        try:
            yield TarReader(_Unpacked(stream), most_members=_MOST_FILES + 1)
        except OSError as error:
            raise host_error(f"{path} cannot be imported", error) from error


def _read_table(archive: TarReader, path: Path) -> JobSnapshot:
    try:
        member = archive.next()
        if member is None or member.name != TABLE.encode() or member.kind != "file":
            raise ValueError(f"it does not begin with {TABLE}")
        if member.size > _LARGEST_TABLE:
            raise ValueError(f"{TABLE} in it is too large")
        table = json.loads(archive.read())
        schema = json_value.whole(table["schema"])
        if schema != SCHEMA:
            raise ValueError(f"another version of boincvm made it (schema {schema})")
        if not 1 <= len(table["files"]) <= _MOST_FILES or len(table["machines"]) > _MOST_FILES:
            raise ValueError("it contains too much, or nothing")
        files = {
            _checked(name): FileSeal(
                json_value.whole(seal["size"]), json_value.text(seal["digest"])
            )
            for name, seal in table["files"].items()
        }
        machines = [_checked_machine(machine) for machine in table["machines"]]
        made = json_value.number(table["made"], LATEST)
        return JobSnapshot(
            files, machines, json_value.text(table["architecture"])[:_LONGEST_VALUE], made
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)[:200]
        raise InputFileError(
            f"{path} is not a usable snapshot: {what}",
            hint="make it with boincvm snapshot export",
        ) from error


def _checked(name: str) -> str:
    """Return `name` if it is valid. Raises ValueError.

    Valid names are a job's file in the directory itself, or a machine's file in a directory there.
    """
    directory, slash, file = name.rpartition("/")
    encoded = os.fsencode(file)
    if slash:
        is_good = bool(_MACHINE.fullmatch(directory) and _MACHINE_FILE.fullmatch(file))
    else:
        is_good = (
            not name.startswith(("boincvm-machine-", "."))
            and name not in NOT_OURS
            and b"\0" not in encoded
            and 1 <= len(encoded) <= _LONGEST_NAME
        )
    if not is_good:
        raise ValueError(f"the name {name[:80]!r}")
    return name


def _checked_machine(machine: object) -> dict[str, object]:
    """Return `machine` if it is valid. Raises ValueError, KeyError, TypeError."""
    if not isinstance(machine, dict) or not isinstance(machine["machine"], dict):
        raise TypeError("a machine's entry is not a table")
    if not _MACHINE.fullmatch(json_value.text(machine["directory"])):
        raise ValueError("a machine's directory")
    for name in ("image", "image_name", "driver"):
        if len(json_value.text(machine[name])) > _LONGEST_VALUE or not machine[name].isprintable():
            raise ValueError(f"a machine's {name}")
    for name in ("checkpoint", "memory"):
        json_value.whole(machine[name])
    return machine


def _check_room(directory: Path, snapshot: JobSnapshot, only: Collection[str] | None) -> None:
    wanted = snapshot.files if only is None else snapshot.files.keys() & only
    size = sum(snapshot.files[name].size for name in wanted)
    hint = "free some space, or choose a directory on another disk"
    check_fits("the snapshot's files", size, directory, hint=hint)


def _read_member(
    archive: TarReader,
    name: str,
    seal: FileSeal,
    path: Path,
    directory: Path | None,
    modified: int,
) -> None:
    digest = hashlib.blake2b(digest_size=32)
    with ExitStack() as stack:
        target = None
        if directory is not None:
            extracted = directory / name
            extracted.parent.mkdir(mode=0o700, exist_ok=True)
            target = stack.enter_context(extracted.open("xb"))
        while data := archive.read(_CHUNK):
            digest.update(data)
            if target is not None:
                target.write(data)
        if digest.hexdigest() != seal.digest:
            raise damaged(path, f"{name!r} differs from what was written")
        if target is not None:
            target.flush()
            set_time(target.fileno(), modified or None)  # earlier versions wrote 0
            os.fsync(target.fileno())


def damaged(path: Path, why: str) -> InputFileError:
    """Return the error that says `why` the file `path` is damaged."""
    return InputFileError(f"{path} is damaged: {why}", hint="export it again")


# Export.


def export(directory: Path, target: Path, *, force: bool) -> JobSnapshot:
    """Write the job in `directory` to `target`, with each machine's newest complete checkpoint.

    The job must not be running. Raises InputFileError if no machine is saved, or one whose driver
    cannot check files of others, OutputFileError, HostDiskFullError.
    """
    if os.path.lexists(target) and not force:
        raise OutputFileError(f"{target} exists", hint="--force replaces it")
    machines = dict(_saved_machines(directory))
    if not machines:
        raise InputFileError(
            f"{directory} contains no saved machine",
            hint="name the directory in which boincvm-wrapper ran, after it has ended",
        )
    _check_drivers(machines)
    sources = {**_job_files(directory), **_machine_files(machines)}
    seals = {name: FileSeal(*digest_of(path)) for name, path in sources.items()}
    snapshot = JobSnapshot(
        seals,
        [_described(source, saved) for source, saved in machines.items()],
        platform.machine(),
        time.time(),
    )
    _write(target, snapshot, sources)
    return snapshot


def _write(target: Path, snapshot: JobSnapshot, sources: dict[str, Path]) -> None:
    """Write the archive, whole or not at all, and read it back to verify it."""
    try:
        with replacement(target) as part:
            with tarfile.open(part, "w:gz", compresslevel=_LEVEL) as archive:
                _add(archive, TABLE, json.dumps(_table(snapshot), indent=1).encode())
                for name, path in sources.items():
                    with path.open("rb") as file:
                        information = tarfile.TarInfo(name)
                        information.size = snapshot.files[name].size
                        modified = clamp_time(os.fstat(file.fileno()).st_mtime_ns)
                        information.pax_headers = {"mtime": pax_time(modified)}
                        archive.addfile(information, file)
            read_all(part)
    except OSError as error:
        raise host_error(
            f"{str(target)[:300]} cannot be written", error, OutputFileError
        ) from error


def _saved_machines(directory: Path) -> Iterator[tuple[Path, SavedMachine]]:
    for source in sorted(directory.glob(MACHINES)):
        saved = find_saved(source).saved
        if saved is not None:
            yield source, saved


def _check_drivers(machines: Mapping[Path, SavedMachine]) -> None:
    """Check that the files of the machines can be checked at an import. Raises InputFileError."""
    for source, saved in machines.items():
        if find_driver(saved.driver).saved_files is None:
            able = [name for name in BUILT_IN if find_driver(name).saved_files is not None]
            raise InputFileError(
                f"{source.name} was saved by the driver {saved.driver}, whose machines cannot be"
                " exported: their files could not be checked when they are imported",
                hint=f"run the job with a driver whose machines can be exported: {', '.join(able)}",
            )


def _described(source: Path, saved: SavedMachine) -> dict[str, object]:
    return {
        "directory": source.name,
        "checkpoint": saved.checkpoint.number,
        "image": saved.image,
        "image_name": saved.shape.image,
        "memory": saved.shape.memory,
        "driver": saved.driver,
        "machine": dict(saved.checkpoint.machine),
    }


def _machine_files(machines: dict[Path, SavedMachine]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for source, saved in machines.items():
        manifest = manifest_path(source, saved.checkpoint.number)
        names = [manifest.name, *saved.checkpoint.files]
        files |= {f"{source.name}/{name}": source / name for name in names}
    return files


def _job_files(directory: Path) -> dict[str, Path]:
    """Return the files beside the machines; a BOINC link counts as its target."""
    try:
        known = read_init_data(directory) if (directory / "init_data.xml").exists() else None
    except InitDataError as error:
        raise InputFileError(f"init_data.xml is invalid: {error.message}") from error
    files: dict[str, Path] = {}
    for path in sorted(directory.iterdir()):
        if path.name in NOT_OURS or path.name.startswith(".") or not path.is_file():
            continue
        try:
            real = resolve(directory, path.name, known)
        except SoftLinkError as error:
            raise InputFileError(f"{path.name} leads out of the job: {error.message}") from error
        if real.is_file():
            files[path.name] = real
    return files


def _table(snapshot: JobSnapshot) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "boincvm": __version__,
        "made": snapshot.made,
        "architecture": snapshot.architecture,
        "machines": snapshot.machines,
        "files": {name: seal._asdict() for name, seal in snapshot.files.items()},
    }


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    information = tarfile.TarInfo(name)
    information.size = len(data)
    archive.addfile(information, io.BytesIO(data))


def check_directory(directory: Path) -> None:
    """Raise HostError if a job runs in `directory`."""
    if (directory / "boincvm.sock").exists():
        raise HostError(
            f"a job runs in {directory}", hint="stop it first: it is saved when it is asked to quit"
        )
