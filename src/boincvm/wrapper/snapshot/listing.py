"""The checkpoints of a job, for people."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from boincvm.errors import BoincvmError, InputFileError
from boincvm.machine.saved_machine import check_files, manifests, read_manifest
from boincvm.wrapper.snapshot.archive import MACHINES


class Listed(NamedTuple):
    """`size`: bytes of all that it needs, also where others need it too. `made`: local time.
    `state`: whole, or what is wrong."""

    machine: str
    number: int
    made: str
    size: int
    state: str


def list_checkpoints(directory: Path) -> list[Listed]:
    """Those of the job in `directory`, all of their files read. Raises InputFileError."""
    if not directory.is_dir():
        raise InputFileError(f"there is no directory {directory}")
    return [
        _listed(place, number, path)
        for place in sorted(directory.glob(MACHINES))
        for number, path in manifests(place)
    ]


def _listed(place: Path, number: int, path: Path) -> Listed:
    try:
        saved = read_manifest(path)
        size = sum(seal.size for seal in saved.checkpoint.files.values())
        made = datetime.fromtimestamp(saved.made).astimezone().isoformat(" ", "seconds")
    except (OSError, ValueError, BoincvmError) as error:
        return Listed(place.name, number, "", 0, f"damaged: {error}")
    try:
        check_files(place, saved.checkpoint.files)
    except (OSError, ValueError) as error:
        return Listed(place.name, number, made, size, f"damaged: {error}")
    return Listed(place.name, number, made, size, "whole")
