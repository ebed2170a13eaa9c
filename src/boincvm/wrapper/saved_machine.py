"""A machine that lies on disk between two runs of the wrapper: what belongs together.

`saved.json` in the machine's directory names a checkpoint in its overlay, and is written when
that is safely on disk; only then the checkpoint before it goes. A machine without the file was
never kept, and is discarded.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from boincvm.atomic_files import write_atomically
from boincvm.job.model import MachineShape
from boincvm.wrapper.task_errors import SavedMachineError

SAVED_FILE = "saved.json"
VERSION = 1
_MOST_BYTES = 1 << 20


class SavedTask(NamedTuple):
    """The program that ran. `number`: of the task in the job; `program`: its end of the guest
    link; `stdin`: bytes read of it; `files`: sizes of the files of its output, by path;
    `guest` and `wall`: seconds that it had used."""

    number: int
    program: dict[str, object]
    stdin: int
    files: dict[str, int]
    guest: float
    wall: float
    fraction_done: float


class SavedMachine(NamedTuple):
    """`checkpoint`: by what name the driver finds it. `shape` and `image` (its digest) must be
    the job's still. `link`: the guest link's state; `steps`: the tasks that the machine has run
    so far; `task`: the one whose program runs in it, None between two."""

    checkpoint: str
    image: str
    shape: MachineShape
    link: dict[str, object]
    steps: tuple[int, ...]
    task: SavedTask | None


def write_saved(directory: Path, saved: SavedMachine) -> None:
    """Raises OSError."""
    kept = {
        "version": VERSION,
        **saved._asdict(),
        "shape": saved.shape._asdict(),
        "task": saved.task and saved.task._asdict(),
    }
    write_atomically(directory / SAVED_FILE, json.dumps(kept).encode())


def sync_files(directory: Path) -> None:
    """What the machine has on disk is really there. Raises OSError."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_saved(directory: Path) -> SavedMachine | None:
    """None where nothing was saved. Raises SavedMachineError."""
    try:
        with (directory / SAVED_FILE).open("rb") as file:
            kept = json.loads(file.read(_MOST_BYTES))
        if kept.pop("version") != VERSION:
            raise ValueError("another version of boincvm wrote it")
        task = kept.pop("task")
        return SavedMachine(
            checkpoint=_text(kept["checkpoint"]),
            image=_text(kept["image"]),
            shape=MachineShape(**kept["shape"]),
            link=dict(kept["link"]),
            steps=tuple(int(step) for step in kept["steps"]),
            task=None if task is None else _task(task),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SavedMachineError(f"{directory / SAVED_FILE} makes no sense: {error}") from error


def _task(kept: dict[str, object]) -> SavedTask:
    task = SavedTask(**kept)  # type: ignore[arg-type]  # checked below
    numbers = (task.guest, task.wall, task.fraction_done, task.stdin, task.number)
    if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
        raise ValueError("a number is none")
    if not isinstance(task.program, dict) or not isinstance(task.files, dict):
        raise TypeError("a table is none")
    if not all(isinstance(size, int) and size >= 0 for size in task.files.values()):
        raise ValueError("a size is none")
    return task


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
