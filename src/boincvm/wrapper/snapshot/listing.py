"""Lists the checkpoints of a job for the user."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import BoincvmError, InputFileError
from boincvm.machine.saved_machine import check_files, manifests, read_manifest
from boincvm.wrapper.snapshot.archive import MACHINES


class Listed(NamedTuple):
    """A checkpoint as the user sees it."""

    machine: str
    number: int
    made: str
    """Local time."""
    size: int
    """Bytes of all files that it needs, including those that other checkpoints need, too."""
    state: str
    """Either `whole`, or what is wrong."""


def list_checkpoints(directory: Path) -> list[Listed]:
    """Return the checkpoints of the job in `directory`, and read all of their files.

    Raises InputFileError.
    """
    if not directory.is_dir():
        raise InputFileError(f"there is no directory {directory}")
    return [
        _listed(machine_directory, number, path)
        for machine_directory in sorted(directory.glob(MACHINES))
        for number, path in manifests(machine_directory)
    ]


def _listed(machine_directory: Path, number: int, path: Path) -> Listed:
    try:
        saved = read_manifest(path)
        size = sum(seal.size for seal in saved.checkpoint.files.values())
        made = datetime.fromtimestamp(saved.made).astimezone().isoformat(" ", "seconds")
    except (OSError, ValueError, BoincvmError) as error:
        return Listed(machine_directory.name, number, "", 0, f"damaged: {error}")
    try:
        check_files(machine_directory, saved.checkpoint.files)
    except (OSError, ValueError) as error:
        return Listed(machine_directory.name, number, made, size, f"damaged: {error}")
    return Listed(machine_directory.name, number, made, size, "whole")
