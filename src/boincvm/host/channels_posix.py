"""Pipes and other descriptors on Linux and macOS; import it through `channels`."""

import os
import select
import sys
from pathlib import Path

assert sys.platform != "win32"

ATOMIC_WRITE = select.PIPE_BUF
_USUAL_CAPACITY = 1 << 16


def wait_until_writable(descriptor: int, milliseconds: int) -> bool:
    """Wait until the descriptor takes ATOMIC_WRITE bytes or is broken; return False on timeout.

    Writing tells whether it is broken.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(milliseconds))


def reader_has_gone(descriptor: int) -> bool:
    """Tell whether the pipe has no reader any more."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def set_blocking(descriptor: int, blocking: bool) -> None:
    """Set whether reads and writes block. Raises OSError."""
    os.set_blocking(descriptor, blocking)


def make_named_pipe(path: Path) -> int:
    """Make a FIFO for this user alone and open it without blocking.

    It is opened for writing too, so that a writer that closes it causes no end of file. Raises
    OSError.
    """
    os.mkfifo(path, 0o600)
    try:
        return os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except BaseException:
        path.unlink()
        raise


def capacity(pipe: int) -> int:
    """Return how many bytes the pipe holds. Raises OSError."""
    if sys.platform == "linux":
        import fcntl

        return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    else:
        return _USUAL_CAPACITY


def widen(pipe: int, size: int) -> None:
    """Set the pipe's capacity to `size` bytes, where the system can do that. Raises OSError."""
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)


def duplicate_above_streams(descriptor: int) -> int:
    """Duplicate the descriptor to a number above 2. Raises OSError."""
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
