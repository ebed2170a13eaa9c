"""Pipes and other descriptors on Windows, not implemented yet; import it through `channels`."""

from pathlib import Path

from boincvm.host.not_yet import not_yet

ATOMIC_WRITE = 512
"""Bytes: the minimum that POSIX guarantees."""
_WHAT = "waiting for pipes"


def wait_until_writable(descriptor: int, milliseconds: int) -> bool:
    """Wait until the descriptor can be written to; return False on timeout."""
    raise not_yet(_WHAT)


def reader_has_gone(descriptor: int) -> bool:
    """Tell whether the pipe has no reader any more."""
    raise not_yet(_WHAT)


def set_blocking(descriptor: int, blocking: bool) -> None:
    """Set whether reads and writes block."""
    raise not_yet(_WHAT)


def make_named_pipe(path: Path) -> int:
    """Make a named pipe."""
    raise not_yet("named pipes")


def capacity(pipe: int) -> int:
    """Return how many bytes the pipe holds."""
    raise not_yet(_WHAT)


def widen(pipe: int, size: int) -> None:
    """Set the pipe's capacity to `size` bytes."""
    raise not_yet(_WHAT)


def duplicate_above_streams(descriptor: int) -> int:
    """Duplicate the descriptor to a number above 2."""
    raise not_yet("descriptors that child processes inherit")
