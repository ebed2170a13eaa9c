"""The processes below a process, where we cannot look them up yet: macOS and Windows."""

from collections.abc import Iterator

from boincvm.host.not_yet import not_yet

ALARM = CONTINUE = KILL = STOP = STOP_REQUEST = 0
"""No signal: nothing here sends one."""
_WHAT = "looking up the processes of a task"


def children(pid: int) -> list[int]:
    """The children of all threads of `pid`."""
    raise not_yet(_WHAT)


def descendants(root: int) -> Iterator[int]:
    """All below `root`, parents first."""
    raise not_yet(_WHAT)


def usage(root: int) -> tuple[float, int]:
    """CPU time in seconds and resident memory in bytes of all that is below `root`."""
    raise not_yet(_WHAT)


def own_usage(pid: int) -> tuple[float, int]:
    """CPU time in seconds and resident memory in bytes of that one process."""
    raise not_yet(_WHAT)


def command_line(pid: int) -> list[bytes]:
    """The words with which that process was started."""
    raise not_yet(_WHAT)


def signal_tree(root: int, number: int) -> None:
    """The signal to all below `root`, once."""
    raise not_yet(_WHAT)


def stop_round(root: int, number: int, told: set[int]) -> bool:
    """The signal to all below `root` that are not in `told`."""
    raise not_yet(_WHAT)


def stands_still(pid: int) -> bool:
    """Whether that one process is stopped, or has ended."""
    raise not_yet(_WHAT)


def is_traced(pid: int) -> bool:
    """Whether another process traces it."""
    raise not_yet(_WHAT)


def send(pid: int, number: int) -> None:
    """The signal to a process that may have gone."""
    raise not_yet(_WHAT)
