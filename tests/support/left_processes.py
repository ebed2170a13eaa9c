"""Processes that a test has started and not ended, whether it passed or failed."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boincvm.host.process_tree import children, command_line, descendants
from support.bench import kill, wait_for_end

_OF_PYTHON = b"from multiprocessing.resource_tracker import main"
"""Serves all tests of this process, and ends with it."""


@contextmanager
def none_left() -> Iterator[list[str]]:
    """End the processes that the block starts and leaves; yield what will be their command lines.

    Processes that had been started before belong to others, such as fixtures of a module.
    """
    before = set(children(os.getpid()))
    left: list[str] = []
    try:
        yield left
    finally:
        for child in set(children(os.getpid())) - before:
            command = b" ".join(command_line(child))
            if _runs(child) and _OF_PYTHON not in command:
                left.append(os.fsdecode(command).strip())
                _end(child)


def _runs(child: int) -> bool:
    """Tell whether it has not ended; one that has may still wait for its parent to notice."""
    try:
        status = Path(f"/proc/{child}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _end(child: int) -> None:
    """End a process and all its descendants, without taking its exit status from its owner."""
    for pid in [*descendants(child), child]:
        try:
            wait_for_end(kill(pid, signal.SIGKILL))
        except ProcessLookupError:
            continue  # it ended with its parent
