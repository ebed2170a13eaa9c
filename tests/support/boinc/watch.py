"""Processes as a test can observe them from outside."""

import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

LIMIT = 60.0
"""Seconds that a test waits for anything, at most."""
STEP = 0.02
"""Seconds between two samples of what no event announces."""


def state_of(pid: int) -> str:
    """Return the letter of /proc/PID/stat: R, S, D, T, Z …; empty if the process does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_gone(pid: int) -> bool:
    """Tell whether the process is dead, even if its parent has not reaped it."""
    return state_of(pid) in ("", "Z", "X")


def until(condition: Callable[[], object], limit: float = LIMIT, *, story: object = "") -> float:
    """Poll `condition` until it holds; return the seconds that it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + limit, f"not within {limit} s\n{story}"
        time.sleep(STEP)
    return time.monotonic() - begin


def kill_all(pids: list[int]) -> None:
    """Send SIGKILL, which ends stopped processes too; return when they have ended."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ready, _, _ = select.select([descriptor], [], [], LIMIT)
            assert ready, f"process {pid} outlives SIGKILL"
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)


def cpu_ticks(pid: int) -> int:
    """Return the user and system time that it has used; 0 if the process does not exist."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(fields[11]) + int(fields[12])
