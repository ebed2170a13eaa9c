"""The descendants of a process on macOS, where they cannot be looked up yet."""

from collections.abc import Iterator

from boincvm.host.not_yet import not_yet

ALARM = CONTINUE = KILL = STOP = STOP_REQUEST = 0
"""No signal: it is never sent there."""
_WHAT = "looking up the processes of a task"


def children(pid: int) -> list[int]:
    """Return the children of all threads of `pid`."""
    raise not_yet(_WHAT)


def descendants(root: int) -> Iterator[int]:
    """Yield all descendants of `root`, parents first."""
    raise not_yet(_WHAT)


def usage(root: int) -> tuple[float, int]:
    """Return the CPU seconds and the resident memory in bytes of all descendants of `root`."""
    raise not_yet(_WHAT)


def own_usage(pid: int) -> tuple[float, int]:
    """Return the CPU seconds and the resident memory in bytes of one process."""
    raise not_yet(_WHAT)


def command_line(pid: int) -> list[bytes]:
    """Return the arguments of a process."""
    raise not_yet(_WHAT)


def signal_tree(root: int, number: int) -> None:
    """Send a signal to each descendant of `root` once."""
    raise not_yet(_WHAT)


def stop_round(root: int, number: int, signalled: set[int]) -> bool:
    """Send a stop signal to all descendants of `root` that are not in `signalled`."""
    raise not_yet(_WHAT)


def stands_still(pid: int) -> bool:
    """Tell whether one process is stopped or has ended."""
    raise not_yet(_WHAT)


def sleeps(pid: int) -> bool:
    """Tell whether one process waits for something in the kernel, is stopped or has ended."""
    raise not_yet(_WHAT)


def is_traced(pid: int) -> bool:
    """Tell whether another process traces it."""
    raise not_yet(_WHAT)


def send(pid: int, number: int) -> None:
    """Send a signal to a process, which may have gone."""
    raise not_yet(_WHAT)
