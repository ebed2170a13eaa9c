"""The wrapper's own state in the slot, beside BOINC's wrapper_checkpoint.txt.

`boincvm_state.json`: {"version": 1, "tasks_done": N, "failures": N, "guest": s, "host": s, "wall":
s}. It holds more than wrapper_checkpoint.txt, and is valid only while both agree on the tasks that
are done: the stock wrapper may have continued the job meanwhile.

`boincvm_outputs.json`: {"INDEX": {"stdout": bytes, "stderr": bytes}, …}, the sizes of the output
files when each task in a machine first began. Outputs are appended to. A task that starts over,
because its machine was lost, must not find in them what it wrote the first time.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from boincvm import json_value
from boincvm.errors import OutputFileError
from boincvm.host.atomic_files import write_atomically
from boincvm.host.files import read_regular
from boincvm.wrapper.cpu_seconds import CpuSeconds
from boincvm.wrapper.outcome import error_of_system

STATE_FILE = "boincvm_state.json"
SIZES_FILE = "boincvm_outputs.json"
_LARGEST_STATE = 4096
_LARGEST_SIZES = 1 << 20
_LONGEST_TIME = 1e10
"""Seconds. A larger value was never measured, and sums of such might be infinite."""


class JobState(NamedTuple):
    """A job's progress."""

    tasks_done: int = 0
    failures: int = 0
    """Successive failures of machines, with no task done in between."""
    seconds: CpuSeconds = CpuSeconds()


Sizes = dict[str, int]
"""Sizes in bytes, by stream."""


def read_state(slot: Path) -> JobState | None:
    """Read the job's state; return None if there is no valid one.

    In that case wrapper_checkpoint.txt alone counts.
    """
    try:
        saved = json.loads(read_regular(slot / STATE_FILE, _LARGEST_STATE))
        seconds = CpuSeconds(
            *(json_value.number(saved[name], _LONGEST_TIME) for name in ("guest", "host", "wall"))
        )
        return JobState(
            json_value.whole(saved["tasks_done"]), json_value.whole(saved["failures"]), seconds
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_state(slot: Path, state: JobState) -> None:
    """Write the job's state, whole or not at all. Raises OSError."""
    saved = {
        "version": 1,
        "tasks_done": state.tasks_done,
        "failures": state.failures,
        **state.seconds._asdict(),
    }
    write_atomically(slot / STATE_FILE, json.dumps(saved).encode())


def sizes_at_begin(slot: Path, index: int, outputs: Mapping[str, Path]) -> Sizes:
    """Return the sizes of the output files when task `index` first began.

    `outputs`: the files by stream. If the task was not begun before, these are the present sizes.
    The sizes of later tasks are forgotten, because they begin after this one. Raises
    OutputFileError, HostDiskFullError, HostError.
    """
    known = _read_sizes(slot)
    sizes = known.get(index)
    if sizes is None:
        sizes = {stream: _size(path) for stream, path in outputs.items()}
    earlier = {task: saved for task, saved in known.items() if task < index}
    table = {str(task): saved for task, saved in {**earlier, index: sizes}.items()}
    try:
        write_atomically(slot / SIZES_FILE, json.dumps(table).encode())
    except OSError as error:
        raise error_of_system("the outputs' sizes could not be saved", error) from error
    return sizes


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OutputFileError(f"output {path}: {error.strerror}") from error


def _read_sizes(slot: Path) -> dict[int, Sizes]:
    """Return the sizes by task; empty if there is no valid file: then all is appended to."""
    try:
        table = json.loads(read_regular(slot / SIZES_FILE, _LARGEST_SIZES))
        return {
            int(index): {str(stream): json_value.whole(size) for stream, size in sizes.items()}
            for index, sizes in table.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
