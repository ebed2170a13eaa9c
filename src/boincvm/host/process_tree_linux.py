"""The descendants of a process, read from /proc (proc(5)), and signals to them.

Import it through `process_tree`.

A tree here is all that descends from a process, without the process itself. Nothing can leave it
while the process is a child subreaper (prctl(2)): orphans become its children. A task's supervisor
(supervisor_linux.py), which has to start fast, imports this file: light imports only.
"""

from __future__ import annotations

import _signal
import os
import sys

assert sys.platform == "linux"

TYPE_CHECKING = False  # the supervisor avoids `typing`; type checkers know this name
if TYPE_CHECKING:
    from collections.abc import Iterator

ALARM = _signal.SIGALRM
CONTINUE = _signal.SIGCONT
KILL = _signal.SIGKILL
STOP = _signal.SIGSTOP
STOP_REQUEST = _signal.SIGTSTP
"""Stops a program unless it handles the signal."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_READ_SIZE = 1 << 16
_MOST_READS = 100
_GONE = (FileNotFoundError, ProcessLookupError)
# Stopped, stopped by a debugger, ended but not waited for, ended.
_STANDS_STILL = (b"T", b"t", b"Z", b"X")
# Fields of /proc/PID/stat, counted from `state`, the first after the name in parentheses.
_STATE, _USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM, _RESIDENT = 0, 11, 12, 13, 14, 21


def children(pid: int) -> list[int]:
    """Return the children of all threads of `pid`, none if it has gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - the guard has no pathlib
    except _GONE:
        return found
    for thread in threads:
        found.extend(map(int, _content(f"/proc/{pid}/task/{thread}/children").split()))
    return found


def descendants(root: int) -> Iterator[int]:
    """Yield all descendants of `root`, parents first.

    A process is yielded before its children are looked up, so what the caller reads of it is no
    younger than what it reads of them.
    """
    found = children(root)
    seen = {root}
    for pid in found:  # `found` grows during the loop
        if pid not in seen:
            seen.add(pid)
            yield pid
            found.extend(children(pid))


def usage(root: int) -> tuple[float, int]:
    """Return the CPU seconds (user and system) and the resident memory in bytes of the tree.

    The time includes processes that have ended and been waited for by their parents; the memory
    does not. The time may miss a process that ends between two reads of one call, but is never too
    large: the caller must see to it that it never decreases.
    """
    status = _status(root)
    ticks = int(status[_CHILDREN_USER]) + int(status[_CHILDREN_SYSTEM]) if status else 0
    pages = 0
    for pid in descendants(root):
        if status := _status(pid):
            ticks += sum(map(int, status[_USER : _CHILDREN_SYSTEM + 1]))
            pages += int(status[_RESIDENT])
    return ticks / _TICKS, pages * _PAGE


def own_usage(pid: int) -> tuple[float, int]:
    """Return the CPU seconds and the resident memory in bytes of one process, 0 if it has gone."""
    status = _status(pid)
    if not status:
        return 0.0, 0
    ticks = int(status[_USER]) + int(status[_SYSTEM])
    return ticks / _TICKS, int(status[_RESIDENT]) * _PAGE


def command_line(pid: int) -> list[bytes]:
    """Return the arguments of a process, none if it has gone or hides them. Never raises."""
    try:
        return _content(f"/proc/{pid}/cmdline").split(b"\0")
    except OSError:
        return []


def signal_tree(root: int, number: int) -> None:
    """Send a signal to each descendant of `root` once."""
    # Find all first: a process that continues may end, and its children would move elsewhere.
    for pid in list(descendants(root)):
        send(pid, number)


def stop_round(root: int, number: int, signalled: set[int]) -> bool:
    """Send a stop signal to all descendants of `root` that are not in `signalled`; add them to it.

    Returns True if all have stopped. Until then one of them may be in the middle of a fork, and its
    child would keep running: call again.
    """
    for _ in range(_MOST_READS):
        before = len(signalled)
        for pid in descendants(root):
            if pid not in signalled:
                signalled.add(pid)
                send(pid, number)
        if len(signalled) == before:
            break
    # Check twice: a process that ends during a scan may leave a child that it has missed.
    standing = _standing(root)
    return standing is not None and standing == _standing(root) and standing <= signalled


def _standing(root: int) -> set[int] | None:
    """Return all descendants of `root`, or None if one of them is not stopped."""
    found = set()
    for pid in descendants(root):
        status = _status(pid)
        if not status or status[_STATE] not in _STANDS_STILL:
            return None
        found.add(pid)
    return found


def stands_still(pid: int) -> bool:
    """Tell whether one process is stopped, by a debugger or otherwise, or has ended."""
    status = _status(pid)
    return not status or status[_STATE] in _STANDS_STILL


def sleeps(pid: int) -> bool:
    """Tell whether one process waits for something in the kernel, is stopped or has ended."""
    status = _status(pid)
    return not status or status[_STATE] in (*_STANDS_STILL, b"S")


def is_traced(pid: int) -> bool:
    """Tell whether another process traces it, as a debugger does."""
    for line in _content(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"TracerPid:"):
            return line.split()[1] != b"0"
    return False


def send(pid: int, number: int) -> None:
    """Send a signal to a process, which may have gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        pass  # a set-user-ID program of another user


def _status(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state on, none if the process has gone."""
    # A name may hold spaces and parentheses; nothing after it does.
    return _content(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _content(path: str) -> bytes:
    parts = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except _GONE:
        return b""
    try:
        while part := os.read(descriptor, _READ_SIZE):
            parts.append(part)
    except _GONE:
        return b""
    finally:
        os.close(descriptor)
    return b"".join(parts)
