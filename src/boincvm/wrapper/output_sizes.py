"""What the output files had when each task in a machine began.

`boincvm_outputs.json`: {"INDEX": {"stdout": bytes, "stderr": bytes}, …}. Outputs are appended to.
A task that is begun anew, for its machine was lost with all that it did, must not find in them
what it wrote the first time.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from boincvm.errors import OutputFileError
from boincvm.host.atomic_files import write_atomically
from boincvm.host.files import open_descriptor
from boincvm.wrapper.client_ends import error_of_system

SIZES_FILE = "boincvm_outputs.json"
_MOST_BYTES = 1 << 20

Sizes = dict[str, int]
"""Bytes by stream."""


def sizes_at_begin(slot: Path, index: int, outputs: Mapping[str, Path]) -> Sizes:
    """What the files `outputs` of task `index`, by stream, had when it first began: now, unless
    it was begun before. What later tasks had is forgotten, for they begin after it.

    Raises OutputFileError, HostDiskFullError, HostError.
    """
    known = _read(slot)
    sizes = known.get(index)
    if sizes is None:
        sizes = {stream: _size(path) for stream, path in outputs.items()}
    earlier = {task: kept for task, kept in known.items() if task < index}
    table = {str(task): kept for task, kept in {**earlier, index: sizes}.items()}
    try:
        write_atomically(slot / SIZES_FILE, json.dumps(table).encode())
    except OSError as error:
        raise error_of_system("the outputs' sizes could not be kept", error) from error
    return sizes


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OutputFileError(f"output {path}: {error.strerror}") from error


def _read(slot: Path) -> dict[int, Sizes]:
    """Nothing where there is no file that makes sense: then all is appended to."""
    try:
        # Without following a link or waiting for a pipe's writer, should it be one.
        descriptor = open_descriptor(slot / SIZES_FILE, follow_links=False, wait=False)
        with os.fdopen(descriptor, "rb") as file:
            table = json.loads(file.read(_MOST_BYTES))
        return {
            int(index): {str(stream): _count(size) for stream, size in sizes.items()}
            for index, sizes in table.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(value)
    return value
