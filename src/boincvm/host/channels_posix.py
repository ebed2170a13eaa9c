"""Pipes and other descriptors on Linux and macOS; `channels` is the face."""

import os
import select
import sys
from pathlib import Path

assert sys.platform != "win32"

ATOMIC_WRITE = select.PIPE_BUF
_USUAL_CAPACITY = 1 << 16


def wait_until_writable(descriptor: int, milliseconds: int) -> bool:
    """Whether the descriptor takes ATOMIC_WRITE bytes, at last after that time; or it is broken,
    which writing tells."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(milliseconds))


def reader_has_gone(descriptor: int) -> bool:
    """Whether nobody reads the pipe any more."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def set_blocking(descriptor: int, blocking: bool) -> None:
    """Whether reading and writing wait. Raises OSError."""
    os.set_blocking(descriptor, blocking)


def make_named_pipe(path: Path) -> int:
    """Make a FIFO for this user alone, and open it without waiting for anybody; also for writing,
    so that it does not end with each writer. Raises OSError."""
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
    """Have the pipe hold `size` bytes, where the system can do that. Raises OSError."""
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)


def duplicate_above_streams(descriptor: int) -> int:
    """Another descriptor of the same file, above 0, 1 and 2. Raises OSError."""
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
