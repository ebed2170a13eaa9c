"""A job with its saved machines, in one file: to go on somewhere else, or to be put by.

A gzip-compressed tar. First comes `snapshot.json`: what it is, and size and digest of every file;
then the files, by their names in the job's directory. Nothing else: no directories, links, owners.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boincvm import __version__
from boincvm.boinc.init_data import InitDataError, read_init_data
from boincvm.boinc.soft_link import SoftLinkError, resolve
from boincvm.errors import HostError, InputFileError, OutputFileError
from boincvm.file_digest import digest_of
from boincvm.filetree import UnsafePathError, components
from boincvm.hypervisor.contract import FileSeal
from boincvm.wrapper.saved_machine import SavedMachine, find_saved, manifest_path

SCHEMA = 1
TABLE = "snapshot.json"
MACHINES = "boincvm-machine-*"
_NOT_OURS = ("boinc_lockfile", "boincvm.sock", "stderr.txt", "boinc_mmap_file")
_LARGEST_TABLE = 1 << 20
_MOST_FILES = 10_000
_CHUNK = 1 << 20
_LEVEL = 1
"""Of compression: the next levels take far longer and save little of a machine's memory."""


class Snapshot(NamedTuple):
    """What a file says of itself. `machines`: for each its directory's name, the image's digest,
    and the driver's table."""

    files: dict[str, FileSeal]
    machines: list[dict[str, object]]
    architecture: str
    made: float


def export(directory: Path, target: Path, *, force: bool) -> Snapshot:
    """Writes the job in `directory`, which does not run, with the newest whole checkpoint of each
    machine. Raises InputFileError where there is none, OutputFileError, OSError."""
    if target.exists() and not force:
        raise OutputFileError(f"{target} exists", hint="--force replaces it")
    machines = dict(_saved_machines(directory))
    if not machines:
        raise InputFileError(
            f"no machine is saved in {directory}",
            hint="name the directory in which boincvm-wrapper ran, after it has ended",
        )
    places = {**_job_files(directory), **_machine_files(machines)}
    seals = {name: FileSeal(*digest_of(path)) for name, path in places.items()}
    snapshot = Snapshot(
        seals,
        [_described(place, saved) for place, saved in machines.items()],
        platform.machine(),
        time.time(),
    )
    part = target.with_name(f".{target.name}.part")
    try:
        with tarfile.open(part, "w:gz", compresslevel=_LEVEL) as archive:
            _add(archive, TABLE, json.dumps(_table(snapshot), indent=1).encode())
            for name, path in places.items():
                with path.open("rb") as file:
                    information = tarfile.TarInfo(name)
                    information.size = seals[name].size
                    archive.addfile(information, file)
        read_all(part)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return snapshot


def _saved_machines(directory: Path) -> Iterator[tuple[Path, SavedMachine]]:
    for place in sorted(directory.glob(MACHINES)):
        saved = find_saved(place).saved
        if saved is not None:
            yield place, saved


def _described(place: Path, saved: SavedMachine) -> dict[str, object]:
    return {
        "directory": place.name,
        "checkpoint": saved.checkpoint.number,
        "image": saved.image,
        "image_name": saved.shape.image,
        "memory": saved.shape.memory,
        "driver": saved.driver,
        "machine": dict(saved.checkpoint.machine),
    }


def _machine_files(machines: dict[Path, SavedMachine]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for place, saved in machines.items():
        manifest = manifest_path(place, saved.checkpoint.number)
        names = [manifest.name, *saved.checkpoint.files]
        files |= {f"{place.name}/{name}": place / name for name in names}
    return files


def _job_files(directory: Path) -> dict[str, Path]:
    """What lies beside the machines; a BOINC link counts as what it leads to."""
    try:
        known = read_init_data(directory) if (directory / "init_data.xml").exists() else None
    except InitDataError as error:
        raise InputFileError(f"init_data.xml makes no sense: {error.message}") from error
    files: dict[str, Path] = {}
    for path in sorted(directory.iterdir()):
        if path.name in _NOT_OURS or path.name.startswith(".") or not path.is_file():
            continue
        if path.name == "init_data.xml":
            continue  # where it goes there is no such client
        try:
            real = resolve(directory, path.name, known)
        except SoftLinkError as error:
            raise InputFileError(f"{path.name} leads out of the job: {error.message}") from error
        if real.is_file():
            files[path.name] = real
    return files


def _table(snapshot: Snapshot) -> dict[str, object]:
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


def read_snapshot(path: Path) -> Snapshot:
    """What the file `path` says of itself; its files are not looked at. Raises InputFileError."""
    with _opened(path) as archive:
        return _read_table(archive, path)


def read_all(path: Path, directory: Path | None = None) -> Snapshot:
    """Reads all of it, and writes it into `directory`, which is new, if that is given.

    Raises InputFileError where anything is not as the file says, OSError.
    """
    with _opened(path) as archive:
        snapshot = _read_table(archive, path)
        left = dict(snapshot.files)
        try:
            for place, member in enumerate(archive):
                if place == 0:
                    continue  # the table
                seal = left.pop(member.name, None)
                if seal is None or not member.isreg() or member.size != seal.size:
                    raise _damaged(path, f"{member.name[:80]!r} does not belong in it")
                _read_member(archive, member, seal, path, directory)
        except (tarfile.TarError, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of our own disk
            raise _damaged(path, str(error)) from error
    if left:
        raise _damaged(path, f"{next(iter(left))!r} is missing")
    return snapshot


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:gz")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputFileError(f"{path} is no snapshot: {error}") from error


def _read_table(archive: tarfile.TarFile, path: Path) -> Snapshot:
    try:
        member = archive.next()
        file = archive.extractfile(member) if member and member.name == TABLE else None
        if member is None or file is None or member.size > _LARGEST_TABLE:
            raise ValueError(f"it does not begin with {TABLE}")
        table = json.load(file)
        if table["schema"] != SCHEMA:
            raise ValueError(f"another boincvm made it (schema {table['schema']})")
        files = {
            _checked(name): FileSeal(int(seal["size"]), str(seal["digest"]))
            for name, seal in table["files"].items()
        }
        if len(files) > _MOST_FILES or not isinstance(table["machines"], list):
            raise ValueError("it says too much")
        machines = [dict(machine) for machine in table["machines"]]
        return Snapshot(files, machines, str(table["architecture"]), float(table["made"]))
    except (tarfile.TarError, EOFError, OSError, ValueError, KeyError, TypeError,
            AttributeError) as error:  # fmt: skip
        raise InputFileError(f"{path} is no snapshot that can be used: {error}") from error


def _checked(name: str) -> str:
    """A file's name in the job's directory, or in a directory there. Raises ValueError."""
    try:
        parts = components(os.fsencode(name))
    except UnsafePathError as error:
        raise ValueError(f"the name {name[:80]!r}: {error}") from error
    plain = str(PurePosixPath(name)) == name
    if not 1 <= len(parts) <= 2 or not plain or name.startswith("."):
        raise ValueError(f"the name {name[:80]!r}")
    return name


def _read_member(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    seal: FileSeal,
    path: Path,
    directory: Path | None,
) -> None:
    source = archive.extractfile(member)
    if source is None:
        raise _damaged(path, f"{member.name!r} is no file")
    digest = hashlib.blake2b(digest_size=32)
    target = None
    try:
        if directory is not None:
            place = directory / member.name
            place.parent.mkdir(mode=0o700, exist_ok=True)
            target = place.open("xb")
        while data := source.read(_CHUNK):
            digest.update(data)
            if target is not None:
                target.write(data)
        if digest.hexdigest() != seal.digest:
            raise _damaged(path, f"{member.name!r} is not what was written")
        if target is not None:
            target.flush()
            os.fsync(target.fileno())
    finally:
        if target is not None:
            target.close()


def import_snapshot(path: Path, directory: Path) -> Snapshot:
    """Makes `directory`, which does not exist or is empty, of the file. Nothing is left of it if
    anything fails. Raises InputFileError, OutputFileError, OSError."""
    if directory.exists() and any(directory.iterdir()):
        raise OutputFileError(f"{directory} is not empty", hint="name a new directory")
    new = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    try:
        snapshot = read_all(path, new)
        new.replace(directory)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return snapshot


def _damaged(path: Path, why: str) -> InputFileError:
    return InputFileError(f"{path} is damaged: {why}", hint="export it again")


def check_directory(directory: Path) -> None:
    """Raises HostError where a job runs in it."""
    if (directory / "boincvm.sock").exists():
        raise HostError(
            f"a job runs in {directory}", hint="end it first: it is saved when it is told to quit"
        )
