"""Child processes on Windows: only priorities are implemented; import it through `processes`.

A job object that is closed with us is to end them (JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE).
"""

import ctypes
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from boincvm.host.not_yet import not_yet

assert sys.platform == "win32"

_WHAT = "child processes that end with boincvm"
_GROUPS = "groups of processes"
_IDLE_PRIORITY_CLASS = 0x40
_SYNCHRONIZE = 0x0010_0000
_ACCESS_DENIED, _INVALID_PARAMETER = 5, 87
_WAIT_TIMEOUT = 258


class ChildProcess:
    """A running child."""

    pid: int

    def __init__(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        descriptors: Sequence[int] = (),
        stdout: int = subprocess.DEVNULL,
        stderr: BinaryIO | int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        raise not_yet(_WHAT)

    @property
    def is_running(self) -> bool:
        raise not_yet(_WHAT)

    def kill(self) -> None:
        """Kill it."""
        raise not_yet(_WHAT)

    def end(self) -> None:
        """Kill it and wait for its end."""
        raise not_yet(_WHAT)

    async def wait(self) -> int:
        """Wait for its end and return its exit status."""
        raise not_yet(_WHAT)


class DeathGuard:
    """A small process that kills another one when we are gone."""

    def __init__(self, pid: int, argument: str) -> None:
        raise not_yet(_WHAT)

    def end(self) -> None:
        """End the guard."""
        raise not_yet(_WHAT)


def die_with_parent(argv: Sequence[str]) -> list[str]:
    """Return the command that ends with its parent."""
    raise not_yet(_WHAT)


def open_process(pid: int) -> int | None:
    """Return None: no descriptor tells when a process has ended."""
    return None


def kill_opened(process: int) -> None:
    """Kill a process opened by `open_process`."""
    raise not_yet("handles of processes")


def process_exists(pid: int) -> bool:
    """Tell whether a process `pid` of any user exists. Raises OSError."""
    library = ctypes.WinDLL("kernel32", use_last_error=True)
    library.OpenProcess.restype = ctypes.c_void_p
    opened = library.OpenProcess(_SYNCHRONIZE, False, pid)
    if not opened:
        number = ctypes.get_last_error()
        if number == _ACCESS_DENIED:
            return True  # it exists, as another user's
        if number == _INVALID_PARAMETER:
            return False
        raise ctypes.WinError(number)
    handle = ctypes.c_void_p(opened)
    try:
        # A process that has ended still exists while somebody has it open.
        return bool(library.WaitForSingleObject(handle, 0) == _WAIT_TIMEOUT)
    finally:
        library.CloseHandle(handle)


def spawn_detached(argv: Sequence[str], log: int) -> int:
    """Start `argv` so that it outlives us."""
    raise not_yet("processes that outlive boincvm")


def wait_for_child(pid: int) -> int:
    """Wait for the child `pid`."""
    raise not_yet(_WHAT)


def terminate_group(leader: int) -> None:
    """Ask the process group that `leader` leads to end."""
    raise not_yet(_GROUPS)


def kill_group(leader: int) -> None:
    """Kill the process group that `leader` leads."""
    raise not_yet(_GROUPS)


def signal_group(leader: int, number: int) -> None:
    """Send a signal to the process group that `leader` leads."""
    raise not_yet(_GROUPS)


def yield_processor() -> None:
    """Let other threads run first, for an instant."""
    ctypes.WinDLL("kernel32").SwitchToThread()


def lower_priority() -> None:
    """Give this process the lowest CPU priority."""
    library = ctypes.WinDLL("kernel32", use_last_error=True)
    library.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(library.GetCurrentProcess())
    if not library.SetPriorityClass(process, _IDLE_PRIORITY_CLASS):
        raise ctypes.WinError(ctypes.get_last_error())


def use_idle_io() -> None:
    """Leave the disk's priority as it is."""
