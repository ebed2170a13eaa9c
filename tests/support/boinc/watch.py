"""What a test can see of processes from outside."""

import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

LIMIT = 60.0
"""Seconds that anything may take that a test waits for."""
STEP = 0.02
"""Seconds between two looks at what nothing announces."""


def state_of(pid: int) -> str:
    """The letter of /proc/PID/stat: R, S, D, T, Z …; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_gone(pid: int) -> bool:
    """Dead; who should bury it may still not have done so."""
    return state_of(pid) in ("", "Z", "X")


def until(condition: Callable[[], object], limit: float = LIMIT, *, story: object = "") -> float:
    """Waits for what nothing announces; returns the seconds it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + limit, f"not within {limit} s\n{story}"
        time.sleep(STEP)
    return time.monotonic() - begin


def kill_all(pids: list[int]) -> None:
    """SIGKILL, which ends stopped processes too; returns when they have ended."""
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
    """User and system time that it has used; 0 where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(fields[11]) + int(fields[12])
