"""Process functions for which macOS differs from Linux; import it through `processes`."""

import sys
from collections.abc import Sequence

from boincvm.host.not_yet import not_yet

assert sys.platform == "darwin"


def die_with_parent(argv: Sequence[str]) -> list[str]:
    """Return the command `argv` itself: macOS cannot end a process with its parent."""
    return [*argv]


def open_process(pid: int) -> int | None:
    """Return None: no descriptor tells when a process has ended."""
    return None


def kill_opened(process: int) -> None:
    """Kill a process opened by `open_process`."""
    raise not_yet("handles of processes")


def exit_status(process: int, limit: float = 0.0) -> int | None:
    """Return None: there are no handles of processes."""
    return None


def use_idle_io() -> None:
    """Leave the disk's priority as it is."""
