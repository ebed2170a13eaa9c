"""Process functions that only Linux has: death with the parent, handles, idle disk priority.

Import it through `processes`.
"""

import os
import select
import signal
import struct
import sys
from collections.abc import Sequence

from boincvm.host.programs import find_program

assert sys.platform == "linux"

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # system call numbers
_IDLE_CLASS = 3 << 13
_INFO = struct.Struct("=QQ11Ii")
"""struct pidfd_info of linux/pidfd.h, as far as it has always gone: mask, ..., exit_code."""
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
_INFO_EXIT = 1 << 3


def die_with_parent(argv: Sequence[str]) -> list[str]:
    """Return the command that runs `argv` and is killed when the thread that starts it dies.

    `setpriv` sets that up between fork and exec, where Python should not run. A shell checks that
    we are still alive, as nobody would send the signal had we died before that.
    """
    guard = find_program("setpriv")
    if guard is None:
        return [*argv]
    parent = str(os.getpid())
    return [guard, "--pdeathsig", "KILL", "--", "/bin/sh", "-c", _IF_WE_LIVE, parent, *argv]


_IF_WE_LIVE = 'test "$PPID" = "$0" && exec "$@"'


def open_process(pid: int) -> int | None:
    """Return a descriptor of the process `pid` that becomes readable when it has ended.

    Returns None where the kernel cannot do that. Raises ProcessLookupError if the process does not
    exist.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (OSError, AttributeError):  # AttributeError: Python was built for an older kernel
        return None


def kill_opened(process: int) -> None:
    """Kill a process opened by `open_process`. Raises OSError."""
    signal.pidfd_send_signal(process, signal.SIGKILL)


def exit_status(process: int, limit: float = 0.0) -> int | None:
    """Return the exit status of a process opened by `open_process`, or minus the signal that ended
    it.

    It is known once the process was reaped, which is waited for up to `limit` seconds. Returns None
    if that takes longer, and before Linux 6.15.
    """
    try:
        code = _exit_code(process)
        if code is None:
            reaped = select.poll()
            reaped.register(process, 0)  # POLLHUP: it was reaped
            reaped.poll(limit * 1000)
            code = _exit_code(process)
    except OSError:
        return None
    return None if code is None else os.waitstatus_to_exitcode(code)


def _exit_code(process: int) -> int | None:
    """Return what wait(2) told the process's parent, None if it has not. Raises OSError."""
    import fcntl

    info = bytearray(_INFO.size)
    struct.pack_into("=Q", info, 0, _INFO_EXIT)
    fcntl.ioctl(process, _GET_INFO, info)
    mask, *_, code = _INFO.unpack(info)
    return code if mask & _INFO_EXIT else None


def use_idle_io() -> None:
    """Give this process the disk only while nobody else uses it."""
    import ctypes
    import platform

    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        ctypes.CDLL(None).syscall(number, 1, 0, _IDLE_CLASS)  # if refused, we are only less polite
