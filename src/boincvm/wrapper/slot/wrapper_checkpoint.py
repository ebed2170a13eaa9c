"""`wrapper_checkpoint.txt`: how far a job is, as BOINC's own wrapper writes and reads it.

One line, `TASKS CPU RUNTIME\\n`: how many tasks are done, seconds of CPU time and of running
time, the latter two with six decimals (BOINC's samples/wrapper/wrapper.cpp). Either wrapper goes
on with a job that the other began; that the file is there tells both that it was begun.
"""

import math
from pathlib import Path
from typing import NamedTuple

from boincvm.host.atomic_files import write_atomically
from boincvm.host.files import read_regular

CHECKPOINT_FILE = "wrapper_checkpoint.txt"
LONGEST_TIME = 1e10
"""Seconds; 300 years. What is more was not measured."""
_MOST_BYTES = 1024
_MOST_DIGITS = 9


class Checkpoint(NamedTuple):
    """How far a job has come, in BOINC's words."""

    tasks_done: int = 0
    cpu_time: float = 0.0
    """Seconds, of all the job, as is `elapsed`."""
    elapsed: float = 0.0


class Restored(NamedTuple):
    """Where a job goes on."""

    checkpoint: Checkpoint = Checkpoint()
    is_new: bool = False
    """Whether the job was never begun before."""
    fault: str = ""
    """Why something in the file was not believed, one line for the log; empty if nothing was
    wrong."""


def write_checkpoint(slot: Path, checkpoint: Checkpoint) -> None:
    """Write the file, whole or not at all, also after a power cut. Raises OSError."""
    text = f"{checkpoint.tasks_done} {checkpoint.cpu_time:f} {checkpoint.elapsed:f}\n"
    write_atomically(slot / CHECKPOINT_FILE, text.encode())


def read_checkpoint(slot: Path, tasks: int) -> Restored:
    """Find where a job of `tasks` tasks goes on: at its beginning where the file is invalid.

    A time that is invalid is 0. Never raises.
    """
    try:
        data = read_regular(slot / CHECKPOINT_FILE, _MOST_BYTES)
    except FileNotFoundError:
        return Restored(is_new=True)
    except OSError as error:
        return _from_the_beginning(f"cannot be read: {error.strerror}")
    fields = data.split()[:3]
    if len(fields) < 3:
        return _from_the_beginning("is cut short" if data else "is empty")
    if not fields[0].isdigit() or len(fields[0]) > _MOST_DIGITS:
        return _from_the_beginning("does not begin with a number of tasks")
    done = int(fields[0])
    if done > tasks:
        return _from_the_beginning(f"says that {done} tasks are done; the job has {tasks}")
    times = [_seconds(field) for field in fields[1:]]
    cpu_time, elapsed = (time or 0.0 for time in times)
    fault = f"{CHECKPOINT_FILE} holds a time that is invalid" if None in times else ""
    return Restored(Checkpoint(done, cpu_time, elapsed), fault=fault)


def _from_the_beginning(why: str) -> Restored:
    return Restored(fault=f"{CHECKPOINT_FILE} {why}: the job starts from its beginning")


def _seconds(field: bytes) -> float | None:
    try:
        value = float(field.replace(b"_", b"?"))  # digits that Python lets one group
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= LONGEST_TIME else None
