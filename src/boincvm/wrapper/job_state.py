"""What the wrapper keeps in the slot beside BOINC's own wrapper_checkpoint.txt.

`boincvm_state.json`: {"version": 1, "tasks_done": N, "failures": N, "guest": s, "host": s,
"wall": s}. It says more than wrapper_checkpoint.txt and counts only while both agree on the
tasks that are done: the stock wrapper may have gone on with the job meanwhile.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

from boincvm.host.atomic_files import write_atomically
from boincvm.host.files import open_descriptor
from boincvm.wrapper.cpu_seconds import CpuSeconds

STATE_FILE = "boincvm_state.json"
_MOST_BYTES = 4096
_LONGEST_TIME = 1e10
"""Seconds; what is more was not measured, and sums of it might be infinite."""


class JobState(NamedTuple):
    """`failures`: machines that failed in succession, with no task done between them."""

    tasks_done: int = 0
    failures: int = 0
    seconds: CpuSeconds = CpuSeconds()


def read_state(slot: Path) -> JobState | None:
    """None where there is none that makes sense: then wrapper_checkpoint.txt alone counts."""
    try:
        # Without following a link or waiting for a pipe's writer, should it be one.
        descriptor = open_descriptor(slot / STATE_FILE, follow_links=False, wait=False)
        with os.fdopen(descriptor, "rb") as file:
            kept = json.loads(file.read(_MOST_BYTES))
        seconds = CpuSeconds(*(_seconds(kept[name]) for name in ("guest", "host", "wall")))
        return JobState(_count(kept["tasks_done"]), _count(kept["failures"]), seconds)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_state(slot: Path, state: JobState) -> None:
    """Raises OSError."""
    kept = {
        "version": 1,
        "tasks_done": state.tasks_done,
        "failures": state.failures,
        **state.seconds._asdict(),
    }
    write_atomically(slot / STATE_FILE, json.dumps(kept).encode())


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(value)
    if not 0 <= value <= _LONGEST_TIME:  # false for NaN, too
        raise ValueError(value)
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    if value < 0:
        raise ValueError(value)
    return value
