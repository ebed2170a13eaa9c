"""What only Linux does for processes: an end with the parent, handles, a disk for the others.

`processes` is the face.
"""

import os
import signal
import sys
from collections.abc import Sequence

from boincvm.host.programs import find_program

assert sys.platform == "linux"

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # system call numbers
_IDLE_CLASS = 3 << 13


def die_with_parent(argv: Sequence[str]) -> list[str]:
    """Return the command with which the kernel ends `argv` when the thread that starts it dies.

    `setpriv` asks for the signal between fork and exec, where Python should not run; had we died
    before that, nobody would send it, so a shell looks whether we are still there.
    """
    guard = find_program("setpriv")
    if guard is None:
        return [*argv]
    parent = str(os.getpid())
    return [guard, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _IF_WE_LIVE, parent, *argv]


_IF_WE_LIVE = 'test "$PPID" = "$0" && exec "$@"'


def open_process(pid: int) -> int | None:
    """Open the process `pid`; its descriptor becomes readable when it has ended.

    None where the kernel cannot do that. Raises ProcessLookupError where there is no such process.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (OSError, AttributeError):  # AttributeError: Python was built for an older kernel
        return None


def kill_opened(process: int) -> None:
    """Kill the process that `open_process` has opened. Raises OSError."""
    signal.pidfd_send_signal(process, signal.SIGKILL)


def use_idle_io() -> None:
    """Have this process use the disk only while nobody else does."""
    import ctypes
    import platform

    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, 1, 0, _IDLE_CLASS)  # refused, it would only be ruder
