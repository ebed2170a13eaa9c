"""What macOS does otherwise than Linux for processes; `processes` is the face."""

import sys
from collections.abc import Sequence

from boincvm.host.not_yet import not_yet

assert sys.platform == "darwin"


def die_with_parent(argv: Sequence[str]) -> list[str]:
    """The command `argv` itself: nothing there ends a process with its parent."""
    return [*argv]


def open_process(pid: int) -> int | None:
    """None: no descriptor tells of a process's end."""
    return None


def kill_opened(process: int) -> None:
    """Kill the process that `open_process` has opened."""
    raise not_yet("handles of processes")


def use_idle_io() -> None:
    """Leave the disk's priority as it is."""
