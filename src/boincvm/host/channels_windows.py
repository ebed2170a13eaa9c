"""Pipes and other descriptors on Windows: not yet; `channels` is the face."""

from pathlib import Path

from boincvm.host.not_yet import not_yet

ATOMIC_WRITE = 512
"""Bytes: what POSIX promises at least."""
_WHAT = "pipes that are waited for"


def wait_until_writable(descriptor: int, milliseconds: int) -> bool:
    """Whether the descriptor can be written to, at last after that time."""
    raise not_yet(_WHAT)


def reader_has_gone(descriptor: int) -> bool:
    """Whether nobody reads the pipe any more."""
    raise not_yet(_WHAT)


def set_blocking(descriptor: int, blocking: bool) -> None:
    """Whether reading and writing wait."""
    raise not_yet(_WHAT)


def make_named_pipe(path: Path) -> int:
    """Make a pipe with a name."""
    raise not_yet("pipes with names")


def capacity(pipe: int) -> int:
    """Return how many bytes the pipe holds."""
    raise not_yet(_WHAT)


def widen(pipe: int, size: int) -> None:
    """Have the pipe hold `size` bytes."""
    raise not_yet(_WHAT)


def duplicate_above_streams(descriptor: int) -> int:
    """Another descriptor of the same file, above 0, 1 and 2."""
    raise not_yet("descriptors that children inherit")
