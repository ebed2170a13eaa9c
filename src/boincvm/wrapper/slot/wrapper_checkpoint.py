"""`wrapper_checkpoint.txt`: a job's progress, as BOINC's own wrapper writes and reads it.

One line, `TASKS CPU RUNTIME\\n`: the number of tasks done, and seconds of CPU time and of running
time with six decimals (BOINC's samples/wrapper/wrapper.cpp). Either wrapper can continue a job that
the other began; the file's existence tells both that it has begun.
"""

import math
from pathlib import Path
from typing import NamedTuple

from boincvm.host.atomic_files import write_atomically
from boincvm.host.files import read_regular

CHECKPOINT_FILE = "wrapper_checkpoint.txt"
LONGEST_TIME = 1e10
"""Seconds, about 300 years. A larger value was never measured."""
_MOST_BYTES = 1024
_MOST_DIGITS = 9


class Checkpoint(NamedTuple):
    """A job's progress as BOINC's wrapper records it."""

    tasks_done: int = 0
    cpu_time: float = 0.0
    """Seconds of CPU time of the whole job."""
    elapsed: float = 0.0
    """Seconds of running time of the whole job."""


class Restored(NamedTuple):
    """Where a job continues."""

    checkpoint: Checkpoint = Checkpoint()
    is_new: bool = False
    """Whether the job has never been begun."""
    fault: str = ""
    """Why something in the file was rejected, a line for the log; empty if all was valid."""


def write_checkpoint(slot: Path, checkpoint: Checkpoint) -> None:
    """Write the file, whole or not at all, also after a power cut. Raises OSError."""
    text = f"{checkpoint.tasks_done} {checkpoint.cpu_time:f} {checkpoint.elapsed:f}\n"
    write_atomically(slot / CHECKPOINT_FILE, text.encode())


def read_checkpoint(slot: Path, tasks: int) -> Restored:
    """Return where a job of `tasks` tasks continues: at its beginning if the file is invalid.

    An invalid time counts as 0. Never raises.
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
        value = float(field.replace(b"_", b"?"))  # Python would accept 1_000
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= LONGEST_TIME else None
