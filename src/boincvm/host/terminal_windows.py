"""The user's terminal on Windows; import it through `terminal`."""

from contextlib import AbstractContextManager

from boincvm.host.not_yet import not_yet

RESIZE_SIGNAL: int | None = None


def is_background_job(terminal: int) -> bool:
    """Return False: Windows has no job control."""
    return False


def raw(terminal: int) -> AbstractContextManager[None]:
    """Put the terminal into raw mode in the block."""
    raise not_yet("a shell in a guest")
