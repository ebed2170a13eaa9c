"""A job with its saved machines becomes one file (snapshot_file.py)."""

import io
import json
import os
import platform
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from boincvm import __version__
from boincvm.boinc.init_data import InitDataError, read_init_data
from boincvm.boinc.soft_link import SoftLinkError, resolve
from boincvm.errors import HostError, InputFileError, OutputFileError, host_error
from boincvm.file_digest import digest_of
from boincvm.hypervisor.contract import FileSeal
from boincvm.machine.saved_machine import SavedMachine, find_saved, manifest_path
from boincvm.tar_reader import pax_time
from boincvm.tree_entries import clamp_time
from boincvm.wrapper.snapshot_file import MACHINES, NOT_OURS, SCHEMA, TABLE, Snapshot, read_all

_LEVEL = 1
"""Of compression: the next levels take far longer and save little of a machine's memory."""


def export(directory: Path, target: Path, *, force: bool) -> Snapshot:
    """Writes the job in `directory`, which does not run, with the newest whole checkpoint of each
    machine. Raises InputFileError where there is none, OutputFileError, HostDiskFullError."""
    if os.path.lexists(target) and not force:
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
    _write(target, snapshot, places)
    return snapshot


def _write(target: Path, snapshot: Snapshot, places: dict[str, Path]) -> None:
    """The archive, whole or not at all, and read back."""
    part = target.with_name(f".{target.name}.part")
    try:
        with tarfile.open(part, "w:gz", compresslevel=_LEVEL) as archive:
            _add(archive, TABLE, json.dumps(_table(snapshot), indent=1).encode())
            for name, path in places.items():
                with path.open("rb") as file:
                    information = tarfile.TarInfo(name)
                    information.size = snapshot.files[name].size
                    modified = clamp_time(os.fstat(file.fileno()).st_mtime_ns)
                    information.pax_headers = {"mtime": pax_time(modified)}
                    archive.addfile(information, file)
        read_all(part)
        part.replace(target)
    except OSError as error:
        raise host_error(
            f"{str(target)[:300]} cannot be written", error, OutputFileError
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


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
        if path.name in NOT_OURS or path.name.startswith(".") or not path.is_file():
            continue
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


def check_directory(directory: Path) -> None:
    """Raises HostError where a job runs in it."""
    if (directory / "boincvm.sock").exists():
        raise HostError(
            f"a job runs in {directory}", hint="end it first: it is saved when it is told to quit"
        )
