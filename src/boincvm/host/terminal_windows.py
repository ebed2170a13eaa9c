"""The user's terminal on Windows; `terminal` is the face."""

from contextlib import AbstractContextManager

from boincvm.host.not_yet import not_yet

RESIZE_SIGNAL: int | None = None


def is_background_job(terminal: int) -> bool:
    """Whether another job of its shell has the terminal: never on Windows."""
    return False


def raw(terminal: int) -> AbstractContextManager[None]:
    """In the block keys come one by one."""
    raise not_yet("a shell in a guest")
